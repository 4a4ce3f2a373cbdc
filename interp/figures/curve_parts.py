"""Points with intervals, joined by lines, of several groups: what curves against a number of heads or edges have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from interp.figures import style
from interp.figures.figure_with_png import Figure

Look = tuple[str, str, str]
"""What a group is called, its colour and its marker."""


def add_draws(figure: Figure, x: list[float], y: list[float], colour: str, hover: list[str]) -> None:
    """A small pale dot for each random draw."""
    marker = {"size": 4, "color": colour, "opacity": 0.45, "line": {"width": 0}}
    figure.add_scatter(x=x, y=y, mode="markers", marker=marker, hovertext=hover, hoverinfo="text")


def add_intervals(figure: Figure, x: Iterable[float], rows: Iterable[Any], colour: str) -> None:
    """A vertical line from ``ci_low`` to ``ci_high`` of each row."""
    across = [at for place in x for at in (place, place, None)]
    up = [end for row in rows for end in (row.ci_low, row.ci_high, None)]
    figure.add_scatter(x=across, y=up, mode="lines", line={"color": colour, "width": 1.2}, hoverinfo="skip")


def add_means(
    figure: Figure, x: list[float], y: list[float], look: Look, hover: list[str], *, width: int, size: int = 8
) -> None:
    """Markers of this size joined by a line of this width, in pixels."""
    _, colour, symbol = look
    marker = {"symbol": symbol, "size": size, "color": colour, "line": {"width": 0}}
    line = {"color": colour, "width": width}
    figure.add_scatter(x=x, y=y, mode="lines+markers", line=line, marker=marker, hovertext=hover, hoverinfo="text")


def add_level(figure: Figure, left: float, right: float, height: float) -> None:
    """A dashed horizontal line behind the curves, but above a grid line at its height."""
    line = {"color": style.MUTED, "width": 1.4, "dash": "dash"}
    figure.add_shape(type="line", x0=left, x1=right, y0=height, y1=height, line=line, layer="between")


def add_legend(figure: Figure, looks: Sequence[Look], at: float, height: float, *, pixel: float, room: int) -> None:
    """The groups in a line from ``at`` on, ``room`` pixels apart; a ``pixel`` is so much of the axis."""
    for name, colour, symbol in looks:
        marker = {"symbol": symbol, "size": 8, "color": colour, "line": {"width": 0}}
        figure.add_scatter(x=[at], y=[height], mode="markers", marker=marker, hoverinfo="skip")
        style.add_label(figure, at + 9 * pixel, height, name)
        at += (room + 6.6 * len(name)) * pixel
