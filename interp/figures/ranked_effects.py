"""The heads with the largest effects, as bars with intervals beside the mean effect of the other heads."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp.ablation.effect_tables import SIGNIFICANCE_LEVEL, sign_meaning
from interp.figures import style
from interp.figures.figure_with_png import Figure

WIDTH, BAR = 520, 24
GREY, FAINT_NEGATIVE, FAINT_POSITIVE = "#d5d9df", "#ebb9b3", "#b3cfe8"


def ranked_effects(table: pd.DataFrame, *, k: int = 15, title: str | None = None) -> Figure:
    """Bars of the ``k`` heads (and pairs) with the largest effects, largest first, with 95% intervals.

    The grey band is the 95% interval of the mean effect of the other heads. Heads without ``exceeds_control`` (the whole interval is
    farther from 0 than that band, and q ≤ 0.05) are faint; so are bars without a band with q > 0.05.
    """
    rows: list[Any] = list(table.itertuples())
    rows = sorted(rows, key=lambda row: -abs(row.effect))[:k]
    left = 24 + 8 * max(len(row.label) for row in rows)
    metric = str(rows[0].metric)
    caption = [style.caption_of(rows[0]), _legend(rows)]
    size = WIDTH, BAR * len(rows) + 8
    figure = style.canvas(size, title or f"Heads by effect on {metric}", caption, left=left, right=28)
    _add_control(figure, rows)
    figure.add_bar(
        x=[row.effect for row in rows],
        y=list(range(len(rows))),
        width=0.62,
        orientation="h",
        marker={"color": [_colour(row) for row in rows], "line": {"width": 0}},
        error_x=_error_bars(rows),
        hovertext=[style.hover_lines(row) for row in rows],
        hoverinfo="text",
    )
    axis = style.escape_markup(f"effect on {metric} in {rows[0].unit} ({sign_meaning(metric)})")
    figure.update_xaxes(title_text=axis, range=_axis_range(rows), showgrid=True, gridcolor=style.LINES)
    labels = [style.escape_markup(row.label) for row in rows]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels, range=[len(rows) - 0.4, -0.6])
    return figure


def _add_control(figure: Figure, rows: list[Any]) -> None:
    """A line at 0 and, behind each bar, the interval of the mean effect of the other heads."""
    for place, row in enumerate(rows):
        if row.control == row.control:  # NaN: no other head was measured
            band = {"x0": row.control_ci_low, "x1": row.control_ci_high, "y0": place - 0.5, "y1": place + 0.5}
            figure.add_shape(type="rect", **band, fillcolor=GREY, line={"width": 0}, layer="below")
    zero = {"x0": 0, "x1": 0, "y0": -0.5, "y1": len(rows) - 0.5}
    figure.add_shape(type="line", **zero, line={"color": style.MUTED, "width": 1}, layer="below")


def _error_bars(rows: list[Any]) -> dict[str, Any]:
    above, below = [row.ci_high - row.effect for row in rows], [row.effect - row.ci_low for row in rows]
    return {"type": "data", "array": above, "arrayminus": below, "color": style.INK, "thickness": 1.2, "width": 3}


def _legend(rows: list[Any]) -> str:
    """The meaning of the marks that occur."""
    legend, faint = "mean and 95% interval", f"q\u00a0>\u00a0{SIGNIFICANCE_LEVEL}"
    if any(row.control == row.control for row in rows):
        legend += "; grey: interval of the other heads' mean"
        faint = f"interval not wholly farther from 0 than the grey one, or {faint}"
    return legend if all(map(_distinct, rows)) else f"{legend}; faint: {faint}"


def _distinct(row: Any) -> bool:
    """Whether the effect exceeds that of the other heads, or is significant where no other head was measured."""
    return bool(row.exceeds_control) or (row.control != row.control and row.q_value <= SIGNIFICANCE_LEVEL)


def _colour(row: Any) -> str:
    if row.effect < 0:
        return style.NEGATIVE if _distinct(row) else FAINT_NEGATIVE
    return style.POSITIVE if _distinct(row) else FAINT_POSITIVE


def _axis_range(rows: list[Any]) -> list[float]:
    """Axis range that holds all intervals and 0, with a margin."""
    low, high = min(0.0, *(row.ci_low for row in rows)), max(0.0, *(row.ci_high for row in rows))
    margin = 0.04 * (high - low or 1.0)
    return [low - margin, high + margin]
