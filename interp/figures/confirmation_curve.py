"""Confirmation curve: performance against the number of detected heads ablated together, with equally many control heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.figures import style
from interp.figures.portable_figure import Figure

if TYPE_CHECKING:
    from interp.confirmation import Confirmation

GROUPS = {
    "detected": ("detected, highest scores", style.POSITIVE, "circle"),
    "random": ("random", style.MUTED, "square"),
    "layer_matched": ("random, same layers", style.NEGATIVE, "diamond"),
    "bottom": ("lowest scores", style.INK, "triangle-down"),
}
"""What a group is called, its colour and its marker."""

STEP, NARROWEST, HEIGHT = 84, 560, 300  # pixels from one number of heads to the next; of all panels at least, and their height
BETWEEN = 0.6  # steps between two panels
DODGE = 0.13  # steps between two groups, so that no interval covers another
HEADROOM = 0.3  # of the range of the metric, for the names of panels and groups above the curves


def confirmation_curve(confirmation: Confirmation, *, title: str | None = None) -> Figure:
    """The metric against the number of heads ablated together: one line per group, one panel per task and choice of positions.

    Lines join the means with their 95% intervals (over prompts, of random groups also over draws); small dots are the single
    draws; the dashed line is the metric with all heads.
    """
    record, curve = confirmation.record, confirmation.tables["curve"]
    ks = sorted({*curve["k"]} - {0})
    panels = list(dict.fromkeys(zip(curve["task"], curve["positions"], strict=True)))
    starts = [i * (len(ks) + BETWEEN) for i in range(len(panels))]
    end = starts[-1] + len(ks)
    width = max(NARROWEST, int(STEP * end))
    low, high = min(0.0, *curve["ci_low"]), max(0.0, *curve["ci_high"])
    air = (high - low) or 1.0
    caption = [
        f"{record.caption()} · {record.arguments['n_examples']:,} prompts",
        f"mean and 95% interval; dot: one of {curve['n_draws'].max()} draws of random heads; dashed: no ablation",
    ]
    figure = style.canvas(width, HEIGHT, title or f"Ablating {confirmation.role} heads", caption, right=24)
    _add_legend(figure, end / width, high + 0.24 * air)
    for (task, where), start in zip(panels, starts, strict=True):
        own, sets = (table[(table["task"] == task) & (table["positions"] == where)] for table in (curve, confirmation.table))
        _add_panel(figure, own, sets, ks, start)
        named = f"{where} positions" if len({task for task, _ in panels}) == 1 else f"{task}, {where} positions"
        place = {"x": [start + len(ks) / 2], "y": [high + 0.1 * air], "mode": "text", "hoverinfo": "skip"}
        figure.add_scatter(**place, text=[style.escape_markup(named)], textfont={"size": 12, "color": style.INK})
    places = {start + i + 0.5: str(k) for start in starts for i, k in enumerate(ks)}
    figure.update_xaxes(title_text="heads ablated together", range=[0, end])
    figure.update_xaxes(tickvals=list(places), ticktext=list(places.values()))
    named = style.escape_markup(f"{record.metric} ({confirmation.details['unit']})")
    figure.update_yaxes(
        title_text=named, range=[low - 0.04 * air, high + HEADROOM * air], tickvals=style.round_ticks(low, low + air)
    )
    figure.update_yaxes(showgrid=True, gridcolor=style.LINES)
    return figure


def _add_legend(figure: Figure, pixel: float, height: float) -> None:
    """The groups with their markers in a line above the panels; a ``pixel`` is so much of the axis."""
    at = 8 * pixel
    for name, colour, symbol in GROUPS.values():
        marker = {"symbol": symbol, "size": 8, "color": colour, "line": {"width": 0}}
        figure.add_scatter(x=[at], y=[height], mode="markers", marker=marker, hoverinfo="skip")
        place = {"x": [at + 9 * pixel], "y": [height], "textposition": "middle right"}
        font = {"size": 11, "color": style.INK}
        figure.add_scatter(**place, mode="text", text=[name], textfont=font, hoverinfo="skip")
        at += (36 + 6.6 * len(name)) * pixel


def _add_panel(figure: Figure, curve: Any, sets: Any, ks: Sequence[int], start: float) -> None:
    """The curves of one task and choice of positions."""
    clean = float(curve.loc[curve["k"] == 0, "value"].iloc[0])
    line = {"color": style.MUTED, "width": 1, "dash": "dash"}
    figure.add_shape(type="line", x0=start, x1=start + len(ks), y0=clean, y1=clean, line=line, layer="below")
    for place, (group, (name, colour, symbol)) in enumerate(GROUPS.items()):
        points, drawn = ([row for row in table.itertuples() if row.group == group and row.k] for table in (curve, sets))
        at = {k: start + i + 0.5 + DODGE * (place - (len(GROUPS) - 1) / 2) for i, k in enumerate(ks)}
        if any(point.n_draws > 1 for point in points):
            figure.add_scatter(
                x=[at[row.k] for row in drawn],
                y=[row.value for row in drawn],
                mode="markers",
                marker={"size": 4, "color": colour, "opacity": 0.45, "line": {"width": 0}},
                hovertext=[f"<b>{name}, draw {row.draw}</b><br>{_hover_text(row)}<br>{_listed(row.heads)}" for row in drawn],
                hoverinfo="text",
            )
        figure.add_scatter(
            x=[x for point in points for x in (at[point.k], at[point.k], None)],
            y=[y for point in points for y in (point.ci_low, point.ci_high, None)],
            mode="lines",
            line={"color": colour, "width": 1.2},
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=[at[point.k] for point in points],
            y=[point.value for point in points],
            mode="lines+markers",
            line={"color": colour, "width": 2 if group == "detected" else 1},
            marker={"symbol": symbol, "size": 8, "color": colour, "line": {"width": 0}},
            hovertext=[f"<b>{name}</b><br>{_hover_text(point)}" for point in points],
            hoverinfo="text",
        )


def _hover_text(row: Any) -> str:
    interval = f"{style.number(row.ci_low)} to {style.number(row.ci_high)}"
    return f"{row.k} ablated: {style.number(row.value)}<br>95% interval {interval} (n = {row.n})<br>effect {style.number(row.effect)}"


def _listed(heads: str, most: int = 10) -> str:
    labels = heads.split()
    return style.escape_markup(" ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else ""))
