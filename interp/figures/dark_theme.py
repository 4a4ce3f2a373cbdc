"""Figures for dark pages: the same figure with exchanged foreground and background, and colour scales whose zero is dark."""

from __future__ import annotations

from typing import Any

from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.figures.ranked_effects import FAINT_NEGATIVE, FAINT_POSITIVE, GREY

PAPER, INK = "#0e1117", "#e8eaee"
SEQUENTIAL = ["#161b25", "#14283f", "#123a5e", "#15507f", "#1f69a0", "#3785bd", "#62a5d3", "#98c7e6", "#d6ebf8"]
DIVERGING = [
    "#ffb3a0",
    "#f2836b",
    "#d15848",
    "#96392f",
    "#542722",
    "#1b1f27",
    "#1c3247",
    "#25557c",
    "#3f82b4",
    "#74afd8",
    "#b9def5",
]
DARK_COLOURS = {
    style.PAPER: PAPER,
    style.INK: INK,
    style.MUTED: "#a3abb8",
    style.LINES: "#2b313c",
    style.EMPTY: "#252b36",
    style.NEGATIVE: "#e5705f",
    style.POSITIVE: "#5aa0dc",
    GREY: "#363d49",
    FAINT_NEGATIVE: "#7a423b",
    FAINT_POSITIVE: "#375a7d",
    **dict(zip(style.interpolated(style.SEQUENTIAL), style.interpolated(SEQUENTIAL), strict=True)),
    **dict(zip(style.DIVERGING, DIVERGING, strict=True)),
}


def to_dark_theme(figure: Figure) -> Figure:
    """A copy of a figure in the colours of the dark theme."""
    traces: list[Any] = list(figure.data)
    parts = {"data": [trace.to_plotly_json() for trace in traces], "layout": figure.layout.to_plotly_json()}
    return Figure(_recoloured(parts))  # not of to_dict, which packs arrays into text that cannot be rendered


def _recoloured(part):
    if isinstance(part, dict):
        return {name: _recoloured(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [_recoloured(value) for value in part]
    return DARK_COLOURS.get(part, part) if isinstance(part, str) else part
