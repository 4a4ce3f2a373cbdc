"""Export of a view: the command and the code that reproduce it, and files of its figure and table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    import pandas as pd

    from interp.figures import Figure

MIME = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "html": "text/html",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export_menu(
    name: str,
    *,
    cli: str = "",
    python: str = "",
    figure: Figure | Callable[[], Figure] | None = None,
    table: pd.DataFrame | Callable[[], pd.DataFrame] | None = None,
) -> None:
    """A row with "Copy as CLI", "Copy as Python" and "Download".

    ``name`` is unique on the page and names the files. A figure or table passed as a function is computed on download.
    """
    with st.container(horizontal=True, key=f"share-{name}"):
        for label, language, code in (("Copy as CLI", "bash", cli), ("Copy as Python", "python", python)):
            if code:
                with st.popover(label, icon=":material/content_copy:", type="tertiary"):
                    st.code(code, language=language, wrap_lines=True)
        if figure is not None or table is not None:
            with st.popover("Download", icon=":material/download:", type="tertiary"):
                for ending in ("png", "svg", "html") if figure is not None else ():
                    _button(name, ending, lambda ending=ending: figure_file(_value(figure), ending))
                for ending, make in (("csv", csv), ("parquet", parquet)) if table is not None else ():
                    _button(name, ending, lambda make=make: make(_value(table)))


def _value(item: Any) -> Any:
    return item() if callable(item) else item


def _button(name: str, ending: str, make: Any) -> None:
    st.download_button(
        ending.upper(), make, f"{name}.{ending}", MIME[ending], key=f"{name}.{ending}", on_click="ignore", width="stretch"
    )


def figure_file(figure: Figure, ending: str) -> bytes:
    """The figure as a file."""
    from interp.figures import figure_bytes

    return figure_bytes(figure, f".{ending}")


def csv(table: pd.DataFrame) -> bytes:
    """The table as CSV in UTF-8; text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe."""
    return table.map(_safe_cell).to_csv(index=False).encode()


def _safe_cell(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = cell.encode("utf-8", "backslashreplace").decode()  # a lone surrogate has no UTF-8 form
    return f"'{text}" if text.startswith(FORMULA) else text


def parquet(table: pd.DataFrame) -> bytes:
    """The table as Parquet."""
    from interp.store.deterministic_parquet import to_parquet

    return to_parquet(table)
