"""Figures as files."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from interp.files import write_atomically

SUFFIXES = (".html", ".json", ".png", ".svg")


def save_figure(figure: go.Figure, path: str | Path) -> Path:
    """Writes the figure in the format of the path's suffix and returns the path.

    ``.html`` stands alone (no network), ``.json`` is plotly's own form; ``.png`` (two pixels per point) and ``.svg`` are drawn by
    matplotlib and need no browser. Equal figures give equal files. Raises ValueError for other suffixes.
    """
    path = Path(path)
    content = figure_bytes(figure, path.suffix.lower(), path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def figure_bytes(figure: go.Figure, suffix: str, name: str = "A figure") -> bytes:
    """What a file with this suffix holds, as in ``save_figure``; ``name`` is what an error calls the file."""
    if suffix not in SUFFIXES:
        raise ValueError(f"{name} has no known format: a figure is saved as {', '.join(SUFFIXES)}.")
    if suffix == ".html":
        options = {"displaylogo": False, "responsive": False}
        return str(figure.to_html(include_plotlyjs=True, div_id="figure", config=options)).encode()
    if suffix == ".json":
        return str(figure.to_json()).encode()
    from interp.figures.static_render import draw

    return draw(figure, suffix[1:])
