"""Head maps that can be clicked.

Plotly reports no clicks on heat maps, but those on markers: each cell carries an invisible marker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.heads import Head
from interp_dashboard.url import State

if TYPE_CHECKING:
    from interp.figures import Figure

INVISIBLE = "rgba(0,0,0,0)"
CHOSEN = "#e8a33d"
CONFIG = {"displayModeBar": False, "scrollZoom": False}


def choose_head(figure: Figure, state: State, key: str, *, alt: str) -> None:
    """Show a head map; a click on a cell sets the field ``head``, whose cell is framed."""
    st.plotly_chart(
        _clickable(figure, state["head"]),
        key=key,
        theme=None,
        width="content",
        on_select=lambda: _clicked(state, key),
        selection_mode="points",
        config=CONFIG,
        alt=alt,
    )


def _clickable(figure: Figure, chosen: Head | None) -> Figure:
    """The figure with a marker on every cell; the marker nearest to the pointer responds."""
    heat: Any = figure.data[0]
    places = [(x, y) for y in heat.y for x in heat.x]
    hover = [text for row in heat.hovertext for text in row]
    heat.hoverinfo = "skip"
    faint = {"marker": {"opacity": 0}}
    figure.add_scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        marker={"symbol": "square", "size": 14, "color": INVISIBLE},
        selected=faint,
        unselected=faint,
        hovertext=hover,
        hoverinfo="text",
    )
    figure.update_layout(hovermode="closest", hoverdistance=-1, dragmode=False, clickmode="event+select")
    if chosen is not None:
        edges = {"x0": chosen.head - 0.5, "x1": chosen.head + 0.5, "y0": chosen.layer - 0.5, "y1": chosen.layer + 0.5}
        figure.add_shape(type="rect", **edges, line={"color": CHOSEN, "width": 3})
    return figure


def _clicked(state: State, key: str) -> None:
    points = st.session_state[key].selection.points
    if points:
        state.set(head=Head(int(points[0]["y"]), int(points[0]["x"])))
