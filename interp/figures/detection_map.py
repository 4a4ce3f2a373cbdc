"""Detection map: the score of every head, with the detected heads outlined."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from interp.detectors import Detection
from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.figures.head_map import head_map
from interp.heads import Head


def detection_map(detection: Detection, *, title: str | None = None, caption: str | None = None) -> Figure:
    """Layer x head map of a detector's scores; the contour outlines the heads above their thresholds.

    Hovering shows a head's rank, score, score under the null, its threshold and the extra scores.
    """
    scores, detected = detection.scores, detection.detected
    named = title or f"Role {detection.role}: {scores.name}"
    figure = head_map(scores, title=named, caption=caption, notes=[f"outlined: {detection.decision()}"])
    cells: Any = figure.data[0]
    hover: Any = np.array(cells.hovertext, dtype=object)
    for rank, head in enumerate(detection.top(scores.values.size), 1):
        hover[head] = _hover_text(detection, head, rank)
    cells.hovertext = hover
    if detected:
        x, y = _contour({*detected})
        line = {"color": style.INK, "width": 2.5}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", cliponaxis=False)
    return figure


def _hover_text(detection: Detection, head: Head, rank: int) -> str:
    verdict = "detected" if detection.above_threshold[head] else "not detected"
    decided = f"{verdict}: rank {rank}, threshold {style.number(detection.threshold[head])}"
    others = {"under the null": detection.control[head], **{name: part[head] for name, part in detection.extra_scores.items()}}
    shown = [f"{style.escape_markup(name)} {style.number(value)}" for name, value in others.items() if not np.isnan(value)]
    return "<br>".join([style.score_lines(detection.scores, head), decided, *shown])


def _contour(heads: set[Head]) -> tuple[list[float | None], list[float | None]]:
    """The edges between these heads and all others as separate lines, x and y."""
    x: list[float | None] = []
    y: list[float | None] = []
    for (layer, head), side in product(sorted(heads), (-0.5, 0.5)):
        if (layer + round(2 * side), head) not in heads:
            x += [head - 0.5, head + 0.5, None]
            y += [layer + side, layer + side, None]
        if (layer, head + round(2 * side)) not in heads:
            x += [head + side, head + side, None]
            y += [layer - 0.5, layer + 0.5, None]
    return x, y
