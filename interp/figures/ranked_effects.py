"""The heads that matter most, as bars with intervals against what a random other head does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from interp.ablation.effect_tables import sign_meaning
from interp.figures import style

if TYPE_CHECKING:
    import pandas as pd

WIDTH, BAR = 520, 24
GREY, PALE_NEGATIVE, PALE_POSITIVE = "#d5d9df", "#ebb9b3", "#b3cfe8"


def ranked_effects(table: pd.DataFrame, *, k: int = 15, title: str | None = None) -> go.Figure:
    """The ``k`` heads (and pairs) of largest effect, the largest at the top, with their 95% intervals.

    The grey band is the 95% interval of the mean effect of the other heads. Heads that are not
    ``exceeds_control`` (beyond it, with q ≤ 0.05) are pale.
    """
    everything: list[Any] = list(table.itertuples())
    rows = sorted(everything, key=lambda row: -abs(row.effect))[:k]
    left = 24 + 8 * max(len(row.label) for row in rows)
    metric = str(rows[0].metric)
    caption = [style.caption_of(rows[0]), _legend(rows)]
    figure = style.canvas(WIDTH, BAR * len(rows) + 8, title or f"Heads by effect on {metric}", caption, left=left, right=28)
    _add_control(figure, rows)
    _add_bars(figure, rows)
    axis = style.safe(f"effect on {metric} in {rows[0].unit} ({sign_meaning(metric)})")
    figure.update_xaxes(title_text=axis, range=_reach(rows), showgrid=True, gridcolor=style.LINES)
    labels = [style.safe(row.label) for row in rows]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels, range=[len(rows) - 0.4, -0.6])
    return figure


def _add_control(figure: go.Figure, rows: list[Any]) -> None:
    """The line at 0, and behind each bar the interval of the mean effect of the other heads."""
    for place, row in enumerate(rows):
        if row.control == row.control:  # NaN: there is no other head
            band = {"x0": row.control_ci_low, "x1": row.control_ci_high, "y0": place - 0.5, "y1": place + 0.5}
            figure.add_shape(type="rect", **band, fillcolor=GREY, line={"width": 0}, layer="below")
    zero = {"x0": 0, "x1": 0, "y0": -0.5, "y1": len(rows) - 0.5}
    figure.add_shape(type="line", **zero, line={"color": style.MUTED, "width": 1}, layer="below")


def _add_bars(figure: go.Figure, rows: list[Any]) -> None:
    above, below = [row.ci_high - row.effect for row in rows], [row.effect - row.ci_low for row in rows]
    figure.add_bar(
        x=[row.effect for row in rows],
        y=list(range(len(rows))),
        width=0.62,
        orientation="h",
        marker={"color": [_colour(row) for row in rows], "line": {"width": 0}},
        error_x={"type": "data", "array": above, "arrayminus": below, "color": style.INK, "thickness": 1.2, "width": 3},
        hovertext=[style.hover_lines(row) for row in rows],
        hoverinfo="text",
    )


def _legend(rows: list[Any]) -> str:
    """What the marks mean, as far as they occur."""
    legend = "mean and 95% interval"
    if any(row.control == row.control for row in rows):
        legend += "; grey: mean of the other heads"
    return legend if all(row.exceeds_control for row in rows) else legend + "; pale: not beyond it"


def _colour(row: Any) -> str:
    if row.effect < 0:
        return style.NEGATIVE if row.exceeds_control else PALE_NEGATIVE
    return style.POSITIVE if row.exceeds_control else PALE_POSITIVE


def _reach(rows: list[Any]) -> list[float]:
    """From the lowest to the highest end of an interval, 0 included, with a little air."""
    low, high = min(0.0, *(row.ci_low for row in rows)), max(0.0, *(row.ci_high for row in rows))
    air = 0.04 * (high - low or 1.0)
    return [low - air, high + air]
