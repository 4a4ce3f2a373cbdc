"""Selectors of metrics, outcomes and heads, and themed figures."""

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
"""Height of a row in pixels, and number of rows shown without scrolling."""


def outcome_field() -> Field:
    """The metric; by default that of the task."""
    return choice("outcome", [OWN_METRIC, *OUTCOMES.names()], noun="metric")


def choose_outcome(state: State, own: str) -> None:
    """Selector of the field ``outcome``; ``own`` labels the task's own metric."""
    names = [OWN_METRIC, *OUTCOMES.names()]
    st.selectbox("Metric", names, format_func=lambda name: name or own, **state.widget_args("outcome"))


def choose_metric(view: View) -> None:
    """Selector of the page's attention metric, the field ``metric``."""
    st.selectbox(
        "Metric",
        metric_names(),
        format_func=lambda name: f"{name}: {about_metric(name)}",
        width=820,
        **view.state.widget_args("metric"),
    )


def show_figure(view: View, figure: Figure, key: str, alt: str) -> None:
    """The figure in the browser's theme."""
    st.plotly_chart(_themed(view, figure), theme=None, width="content", config=CONFIG, key=key, alt=alt)


def head_from_map(view: View, figure: Figure, key: str, alt: str) -> None:
    """A head map in the browser's theme; a click selects a head."""
    choose_head(_themed(view, figure), view.state, key, alt=alt)


def head_from_table(
    view: View, table: pd.DataFrame, heads: Sequence[Head], key: str, columns: Mapping[str, Any] | None = None
) -> None:
    """A sortable table with one row for each of ``heads``; selecting a row selects its head."""
    chosen = view.state["head"]
    mount = st.session_state.setdefault(f"{key}-mount", {"number": 0, "head": chosen})
    if (
        chosen != mount["head"]
    ):  # selected elsewhere: a new table widget, because the selected row of a mounted one cannot be set
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
    """Height in pixels of a table that shows up to twelve rows."""
    return ROW * (min(n_rows, TALLEST) + 1) + 3


def _themed(view: View, figure: Figure) -> Figure:
    from interp.figures import to_dark_theme

    return to_dark_theme(figure) if view.dark else type(figure)(figure)
