"""Figures as files."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from interp.figures.static_render import render
from interp.files import user_path, write_atomically

SUFFIXES = (".html", ".json", ".png", ".svg")


def save_figure(figure: go.Figure, path: str | Path) -> Path:
    """Writes the figure in the format given by the path's suffix and returns the path.

    ``.html`` is self-contained (no network), ``.json`` is plotly's own format; ``.png`` (two pixels per CSS pixel) and ``.svg`` are drawn
    by matplotlib and need no browser. Equal figures give equal files. Raises ValueError for other suffixes.
    """
    path = user_path(path)
    content = figure_bytes(figure, path.suffix.lower(), path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def figure_bytes(figure: go.Figure, suffix: str, name: str = "A figure") -> bytes:
    """The content of a file with this suffix, as in ``save_figure``; ``name`` names the file in error messages."""
    if suffix not in SUFFIXES:
        raise ValueError(f"{name} has no supported format. Figures are saved as {', '.join(SUFFIXES)}.")
    if suffix == ".html":
        options = {"displaylogo": False, "responsive": False}
        return str(figure.to_html(include_plotlyjs=True, div_id="figure", config=options)).encode()
    if suffix == ".json":
        return str(figure.to_json()).encode()
    return render(figure, suffix[1:])
