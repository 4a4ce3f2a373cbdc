"""Head maps that can be clicked.

Plotly reports no clicks on heat maps, but those on markers: each cell carries an invisible marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from interp.figures import Figure
from interp.heads import Head
from interp_dashboard.url import State

INVISIBLE = "rgba(0,0,0,0)"
CHOSEN = "#e8a33d"
FAINT = {"marker": {"opacity": 0}}
LARGE_CELLS = 14
"""Layers or heads of a map up to which its cells leave room for a broad frame beside their number."""
BESIDE = 480
"""Pixels of a window beside the widest figure that fits: the sidebar, margins and a scroll bar."""
CONFIG = {"displayModeBar": False, "scrollZoom": False}


def choose_head(figure: Figure, state: State, key: str, *, alt: str) -> None:
    """Show a head map; a click on a cell sets the field ``head``, whose cell is framed."""
    show_clickable(_clickable(figure, state["head"]), lambda: _clicked(state, key), key, alt)


def show_clickable(figure: Figure, clicked: Callable[[], None], key: str, alt: str) -> None:
    """Show a figure whose selected points are in the session's state under ``key`` when ``clicked`` is called."""
    options: Any = {"theme": None, "width": "content", "selection_mode": "points", "config": CONFIG}
    with full_width(figure, key):
        st.plotly_chart(figure, key=key, on_select=clicked, alt=alt, **options)


@contextmanager
def full_width(figure: Figure, key: str) -> Iterator[None]:
    """A container in which a figure keeps its width: on a narrow screen it is scrolled, where Streamlit would squeeze its plotting area
    and cut its caption."""
    width: Any = figure.layout.width
    frame = f"frame-{key}"
    look = f".st-key-{frame} {{ overflow-x: auto }} .st-key-{frame} > * {{ min-width: {width}px }}"
    with st.container(key=frame):
        st.html(f"<style>@media (max-width: {width + BESIDE}px) {{ {look} }}</style>")
        yield


def _clickable(figure: Figure, chosen: Head | None) -> Figure:
    """The figure with a marker on every cell; the marker nearest to the pointer responds."""
    heat: Any = figure.data[0]
    heat.hoverinfo = "skip"
    places = {"x": [*heat.x] * len(heat.y), "y": [y for y in heat.y for _ in heat.x], "mode": "markers"}
    look = {"marker": {"symbol": "square", "size": 14, "color": INVISIBLE}, "selected": FAINT, "unselected": FAINT}
    figure.add_scatter(**places, **look, hovertext=[text for row in heat.hovertext for text in row], hoverinfo="text")
    figure.update_layout(hovermode="closest", hoverdistance=-1, dragmode=False, clickmode="event+select")
    if chosen is not None:
        x = [chosen.head + step for step in (-0.5, 0.5, 0.5, -0.5, -0.5)]
        y = [chosen.layer + step for step in (-0.5, -0.5, 0.5, 0.5, -0.5)]
        line = {"color": CHOSEN, "width": 6 if max(len(heat.x), len(heat.y)) <= LARGE_CELLS else 3}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", cliponaxis=False)
        figure.data = (heat, figure.data[-1], *figure.data[1:-1])  # below the outlines of heads, so that both are visible
    return figure


def add_frame(figure: Figure, x: float, y: float, width: float, height: float) -> None:
    """A frame around what is selected at this point, which reaches this far to either side."""
    edges = {"x0": x - width, "x1": x + width, "y0": y - height, "y1": y + height}
    figure.add_shape(type="rect", **edges, line={"color": CHOSEN, "width": 3})


def _clicked(state: State, key: str) -> None:
    points = st.session_state[key].selection.points
    if points:
        state.set(head=Head(int(points[0]["y"]), int(points[0]["x"])))
