"""Figures in the browser's theme, and tables, by which a head can be selected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from interp.figures import Figure, to_dark_theme
from interp.heads import Head
from interp_dashboard.clickable_maps import CONFIG, choose_head, full_width
from interp_dashboard.page_definition import View

ROW, TALLEST = 35, 12.5  # half a row shows that more follow
"""Height of a row in pixels, and number of rows shown without scrolling."""


def show_figure(view: View, figure: Figure, key: str, alt: str) -> None:
    """The figure in the browser's theme."""
    shown = themed(view, figure)
    with full_width(shown, key):
        st.plotly_chart(shown, theme=None, width="content", config=CONFIG, key=key, alt=alt)


def head_from_map(view: View, figure: Figure, key: str, alt: str) -> None:
    """A head map in the browser's theme; a click selects a head."""
    choose_head(themed(view, figure), view.state, key, alt=alt)


def head_from_table(
    view: View, table: pd.DataFrame, heads: Sequence[Head], key: str, columns: Mapping[str, Any] | None = None
) -> None:
    """A sortable table with one row for each of ``heads``; selecting a row selects its head."""

    def choose(head: Head | None) -> Head | None:
        if head is not None:
            view.state.set(head=head)
        return view.state["head"]

    selectable_table(table, heads, view.state["head"], choose, key, watched=tuple(heads), column_config=columns)


def selectable_table(
    table: pd.DataFrame,
    rows: Sequence[Any],
    chosen: Any,
    choose: Callable[[Any], Any],
    key: str,
    *,
    watched: Any = None,
    **options: Any,
) -> None:
    """A sortable table whose rows stand for ``rows``; ``choose`` gets the selected one, or None, and returns what is chosen from then on.

    The selected row of a mounted widget cannot be set: a new one is mounted when ``chosen`` changes elsewhere, or ``watched`` changes.
    """
    mount = st.session_state.setdefault(f"{key}-mount", {"number": 0, "chosen": chosen, "watched": watched})
    if (chosen, watched) != (mount["chosen"], mount["watched"]):
        mount.update(number=mount["number"] + 1, chosen=chosen, watched=watched)
    own = f"{key}-{mount['number']}"

    def select() -> None:
        selected = [rows[i] for i in st.session_state[own].selection.rows if i < len(rows)]
        mount["chosen"] = choose(selected[0] if selected else None)

    marked: Any = {"selection": {"rows": [rows.index(chosen)]}} if chosen in rows else None
    show_table(table, own, on_select=select, selection_mode="single-row", selection_default=marked, **options)


def show_table(table: pd.DataFrame, key: str | None = None, **options: Any) -> None:
    """A table of up to twelve and a half visible rows, nothing in cells without a value, with further ``options`` of ``st.dataframe``."""
    st.dataframe(table, hide_index=True, height=table_height(len(table)), key=key, placeholder="", **options)


def number_columns(names: Iterable[str], format: str = "%.3f") -> dict[str, Any]:
    """Columns of numbers in this format."""
    return {name: st.column_config.NumberColumn(name, format=format) for name in names}


def effect_columns() -> dict[str, Any]:
    """The columns of a table of effects."""

    def shown(label: str, help: str | None = None, form: str = "%.3g") -> Any:
        return st.column_config.NumberColumn(label, help=help, format=form)

    return {
        "label": st.column_config.TextColumn("head", pinned=True, width="small"),
        "effect": shown("effect", "metric(ablated) − metric(clean), mean over prompts"),
        "ci_low": shown("95% low", "lower end of the 95% interval over prompts or their clusters (bootstrap)"),
        "ci_high": shown("95% high", "upper end of the 95% interval over prompts or their clusters (bootstrap)"),
        "p_value": shown("p", "p-value of a sign-flip test over prompts or their clusters"),
        "q_value": shown("q", "p-value adjusted over all heads (Benjamini-Hochberg)"),
        "control": shown("other heads", "mean effect of the other heads (the control)"),
        "exceeds_control": st.column_config.CheckboxColumn(
            "exceeds others", help="interval beyond that of the other heads, and q ≤ 0.05"
        ),
        "sign_consistency": shown("same sign", "share of prompts whose effect has the sign of the mean effect", "percent"),
        "baseline": shown("clean", "metric(clean), mean over prompts"),
        "n": shown("n", "number of prompts", "%d"),
        "n_clusters": shown("clusters", "number of clusters of prompts", "%d"),
    }


def table_height(n_rows: int) -> int:
    """Height in pixels of a table that shows up to twelve rows and a half."""
    return int(ROW * (min(n_rows, TALLEST) + 1)) + 3


def themed(view: View, figure: Figure) -> Figure:
    """A copy of the figure in the browser's theme."""
    return to_dark_theme(figure) if view.dark else type(figure)(figure)
