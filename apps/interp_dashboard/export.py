"""Export of a view: the command and the code that reproduce it, and files of its figure and table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from interp.figures import Figure, figure_bytes
from interp.store import StoredRun
from interp.store.deterministic_parquet import to_parquet
from interp.store.tables_as_csv import to_csv

MIME = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "html": "text/html",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}


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
    file = f"{name}.{ending}"
    st.download_button(ending.upper(), make, file, MIME[ending], key=file, on_click="ignore", width="stretch")


def run_code(run: StoredRun, load: str, draw: str, names: str = "found") -> str:
    """Code that loads the run as ``names`` with a function of ``interp.store`` and draws it with one of ``interp.figures``."""
    figure = draw.split("(")[0]
    loaded = f"{names} = {load}({str(run.path)!r})"
    return f"from interp.figures import {figure}\nfrom interp.store import {load}\n\n{loaded}\n{draw}\n"


def figure_file(figure: Figure, ending: str) -> bytes:
    """The figure as a file."""
    return figure_bytes(figure, f".{ending}")


def csv(table: pd.DataFrame) -> bytes:
    """The table as CSV in UTF-8, as ``interp show --csv`` writes it."""
    return to_csv(table).encode()


def parquet(table: pd.DataFrame) -> bytes:
    """The table as Parquet."""
    return to_parquet(table)
