"""Confirmation curve: performance against the number of detected heads ablated together, with equally many control heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.confirmation import Confirmation
from interp.figures import curve_parts, style
from interp.figures.figure_with_png import Figure

GROUPS = {
    "detected": ("detected, highest scores", style.POSITIVE, "circle"),
    "random": ("random", style.MUTED, "square"),
    "layer_matched": ("random, layer-matched", style.NEGATIVE, "diamond"),
    "bottom": ("lowest-scoring", style.INK, "triangle-down"),
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
        record.caption(),
        f"mean and 95% interval; dot: one of {curve['n_draws'].max()} draws of random heads; dashed: no ablation",
    ]
    figure = style.canvas((width, HEIGHT), title or f"Ablating {confirmation.role} heads", caption, right=24)
    pixel = end / width
    curve_parts.add_legend(figure, list(GROUPS.values()), 8 * pixel, high + 0.24 * air, pixel=pixel, room=36)
    for (task, where), start in zip(panels, starts, strict=True):
        own, sets = (table[(table["task"] == task) & (table["positions"] == where)] for table in (curve, confirmation.table))
        _add_panel(figure, own, sets, ks, start)
        named = f"{where} positions" if len({task for task, _ in panels}) == 1 else f"{task}, {where} positions"
        place = {"x": [start + len(ks) / 2], "y": [high + 0.1 * air], "mode": "text", "hoverinfo": "skip"}
        figure.add_scatter(**place, text=[style.escape_markup(named)], textfont={"size": 12, "color": style.INK})
    places = {start + i + 0.5: str(k) for start in starts for i, k in enumerate(ks)}
    figure.update_xaxes(title_text="heads ablated together", range=[0, end])
    figure.update_xaxes(tickvals=list(places), ticktext=list(places.values()))
    figure.update_yaxes(title_text=style.escape_markup(f"{record.metric} ({confirmation.details['unit']})"))
    steps = style.round_ticks(low, low + air)
    figure.update_yaxes(range=[low - 0.04 * air, high + HEADROOM * air], tickvals=steps, showgrid=True, gridcolor=style.LINES)
    return figure


def _add_panel(figure: Figure, curve: Any, sets: Any, ks: Sequence[int], start: float) -> None:
    """The curves of one task and choice of positions."""
    clean = float(curve.loc[curve["k"] == 0, "value"].iloc[0])
    curve_parts.add_level(figure, start, start + len(ks), clean)
    for place, (group, look) in enumerate(GROUPS.items()):
        name, colour, _ = look
        points, drawn = ([row for row in table.itertuples() if row.group == group and row.k] for table in (curve, sets))
        at = {k: start + i + 0.5 + DODGE * (place - (len(GROUPS) - 1) / 2) for i, k in enumerate(ks)}
        if any(point.n_draws > 1 for point in points):
            texts = [f"<b>{name}, draw {row.draw}</b><br>{_hover_text(row)}<br>{_listed(row.heads)}" for row in drawn]
            curve_parts.add_draws(figure, [at[row.k] for row in drawn], [row.value for row in drawn], colour, texts)
        across = [at[point.k] for point in points]
        curve_parts.add_intervals(figure, across, points, colour)
        texts, width = [f"<b>{name}</b><br>{_hover_text(point)}" for point in points], 2 if group == "detected" else 1
        curve_parts.add_means(figure, across, [point.value for point in points], look, texts, width=width)


def _hover_text(row: Any) -> str:
    interval = f"{style.number(row.ci_low)} to {style.number(row.ci_high)}"
    return f"{row.k} ablated: {style.number(row.value)}<br>95% interval {interval} (n = {row.n})<br>effect {style.number(row.effect)}"


def _listed(heads: str, most: int = 10) -> str:
    labels = heads.split()
    return style.escape_markup(" ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else ""))
