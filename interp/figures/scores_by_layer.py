"""One number per head by layer: a dot per head, a line at the mean of each layer."""

from __future__ import annotations

import numpy as np

from interp.ablation.effect_tables import sign_meaning
from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.heads import Head, HeadScores

HEIGHT, LAYER, NARROWEST, WIDEST, FEW = 300, 110, 480, 820, 12
LETTER, ROW = 6.5, 18  # pixels of a letter of a label, and between two labels one above the other
SPREAD = 0.7  # share of a layer's width over which its heads are spread


def scores_by_layer(scores: HeadScores, *, named: int = 3, width: int | None = None, title: str | None = None) -> Figure:
    """Dot plot of one number per head, layers on x, the heads of a layer side by side, with a line at their mean.

    ``width`` of the plotting area, in pixels, applies to at most 12 layers; by default, and for more layers, it follows their number.
    The ``named`` heads of largest magnitude are labelled, heads close together with one label. Heads without a number are omitted; the
    caption says how many and why.
    """
    values = scores.values
    n_layers, n_heads = values.shape
    if width is None or n_layers > FEW:
        width = int(np.clip(LAYER * n_layers, NARROWEST, WIDEST))
    absent = int(np.isnan(values).sum())
    why = f": {scores.nan_reason}" if scores.nan_reason else ""
    note = f"; {absent:,} of {values.size:,} heads have no number{why}" if absent else ""
    sign = f"; {sign_meaning(scores.record.metric)}" if (effects := scores.name.startswith("effect")) else ""
    mean = "mean of the layer's heads that have a number" if absent else "mean of the layer"
    caption = [scores.record.caption(), f"dot: head; line: {mean}{sign}{note}"]
    name = f"Effect{scores.name.removeprefix('effect')}" if effects else scores.name
    figure = style.canvas((width, HEIGHT), title or f"{name} by layer", caption, right=24)
    across = {head: head.layer + SPREAD * ((head.head + 0.5) / n_heads - 0.5) for head in scores.top(values.size)}
    means = {layer: np.nanmean(values[layer]) for layer in sorted({head.layer for head in across})}
    figure.add_scatter(
        x=list(across.values()),
        y=[scores[head] for head in across],
        mode="markers",
        marker={"size": 7 if n_heads <= 16 else 4.5, "color": style.POSITIVE, "line": {"width": 0}},
        hovertext=[style.score_lines(scores, head) for head in across],
        hoverinfo="text",
    )
    figure.add_scatter(
        x=[x for layer in means for x in (layer - 0.42, layer + 0.42, None)],
        y=[y for mean in means.values() for y in (mean, mean, None)],
        mode="lines",
        line={"color": style.INK, "width": 1.5},
        hoverinfo="skip",
    )
    ends, axis = (-0.6, n_layers - 0.4), _axis_range(scores)
    places = {head: (across[head], scores[head]) for head in scores.top(named)}
    labels = _labels(places, ends, LETTER * (ends[1] - ends[0]) / width, ROW * (axis[1] - axis[0]) / HEIGHT)
    figure.add_scatter(
        x=[x for _, x, _ in labels],
        y=[y for _, _, y in labels],
        mode="markers+text",  # the invisible marker keeps the label off the dot
        marker={"size": 8, "color": style.POSITIVE, "opacity": 0, "line": {"width": 0}},
        text=[text for text, _, _ in labels],
        textposition="top center",
        textfont={"size": 10, "color": style.INK},
        hoverinfo="skip",
    )
    figure.update_xaxes(title_text="layer", tickvals=style.ticks(n_layers), range=list(ends))
    figure.update_yaxes(title_text=style.escape_markup(f"{scores.name} ({scores.unit})"), range=axis)
    figure.update_yaxes(showgrid=True, gridcolor=style.LINES)
    return figure


def _labels(
    places: dict[Head, tuple[float, float]], ends: tuple[float, float], letter: float, row: float
) -> list[tuple[str, float, float]]:
    """Text, middle and height of the labels of heads at these places: one label for heads whose own would overlap, between the ``ends``."""

    def label(heads: list[Head]) -> tuple[str, float, float]:
        text = ", ".join(map(str, sorted(heads)))
        x, y = np.mean([places[head][0] for head in heads]), max(places[head][1] for head in heads)
        half = letter * len(text) / 2
        return text, float(np.clip(x, ends[0] + half, ends[1] - half)), y

    def overlap(one: list[Head], other: list[Head]) -> bool:
        (text, x, y), (text2, x2, y2) = label(one), label(other)
        return abs(x - x2) < letter * (len(text) + len(text2) + 1) / 2 and abs(y - y2) < row

    groups: list[list[Head]] = []
    for head in places:
        group = [head]
        while near := [other for other in groups if overlap(group, other)]:
            groups = [other for other in groups if other not in near]
            group += [member for other in near for member in other]
        groups.append(group)
    return [label(group) for group in groups]


def _axis_range(scores: HeadScores) -> list[float]:
    """Axis range of the values, including 0 if they cannot be negative, with room for labels above."""
    values = scores.values[~np.isnan(scores.values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if scores.bounds[0] is not None and scores.bounds[0] >= 0:
        low = 0.0
    margin = (high - low) or abs(high) or 1.0
    return [low - 0.03 * margin, high + 0.1 * margin]
