"""Choosing a metric or an outcome, choosing a head by a row of a table, and figures that are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp_dashboard.clickable_maps import CONFIG, choose_head
from interp_dashboard.metric_cache import about_metric, metric_names
from interp_dashboard.url import Field, State, choice

if TYPE_CHECKING:
    import pandas as pd

    from interp.figures import Figure
    from interp_dashboard.page import View

OWN_METRIC = ""
ROW, TALLEST = 35, 12
"""Height of a row in pixels, and rows of a table that are shown without scrolling."""


def outcome_field() -> Field:
    """The metric of an outcome; by default that of the task."""
    return choice("outcome", [OWN_METRIC, *OUTCOMES.names()], noun="metric")


def choose_outcome(state: State, own: str) -> None:
    """The box that chooses it, the field ``outcome``; ``own`` is how the task's is called."""
    names = [OWN_METRIC, *OUTCOMES.names()]
    st.selectbox("Metric", names, format_func=lambda name: name or own, **state.widget_args("outcome"))


def choose_metric(view: View) -> None:
    """The box that chooses the attention metric of the page, the field ``reading``."""
    st.selectbox(
        "Metric",
        metric_names(),
        format_func=lambda name: f"{name}: {about_metric(name)}",
        width=560,
        **view.state.widget_args("metric"),
    )


def show_figure(view: View, figure: Figure, key: str, alt: str) -> None:
    """The figure in the browser's theme."""
    st.plotly_chart(_themed(view, figure), theme=None, width="content", config=CONFIG, key=key, alt=alt)


def head_from_map(view: View, figure: Figure, key: str, alt: str) -> None:
    """A map of heads in the browser's theme; a click chooses one."""
    choose_head(_themed(view, figure), view.state, key, alt=alt)


def head_from_table(
    view: View, table: pd.DataFrame, heads: Sequence[Head], key: str, columns: Mapping[str, Any] | None = None
) -> None:
    """A sortable table, one row for each of ``heads``, in which a row chooses its head."""
    chosen = view.state["head"]
    mount = st.session_state.setdefault(f"{key}-mount", {"number": 0, "head": chosen})
    if chosen != mount["head"]:  # chosen elsewhere: the table is made anew so that its marked row follows, and loses its order
        mount.update(number=mount["number"] + 1, head=chosen)
    own = f"{key}-{mount['number']}"

    def choose() -> None:
        rows = st.session_state[own].selection.rows
        if rows and rows[0] < len(heads):
            mount["head"] = heads[rows[0]]
            view.state.set(head=heads[rows[0]])

    marked: Any = {"selection": {"rows": [heads.index(chosen)]}} if chosen in heads else None
    st.dataframe(
        table,
        hide_index=True,
        height=table_height(len(table)),
        column_config=columns,
        key=own,
        on_select=choose,
        selection_mode="single-row",
        selection_default=marked,
    )


def table_height(n_rows: int) -> int:
    """Pixels of a table that shows its rows, the first twelve at most, without a gap below."""
    return ROW * (min(n_rows, TALLEST) + 1) + 3


def _themed(view: View, figure: Figure) -> Figure:
    from interp.figures import to_dark_theme

    return to_dark_theme(figure) if view.dark else type(figure)(figure)
