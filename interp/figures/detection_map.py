"""Detection map: the score of every head, with the detected heads outlined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from interp.figures import style
from interp.figures.head_map import head_map
from interp.figures.portable_figure import Figure
from interp.heads import Head

if TYPE_CHECKING:
    from interp.detectors import Detection


def detection_map(detection: Detection, *, title: str | None = None, caption: str | None = None) -> Figure:
    """Layer x head map of a detector's scores; the contour encloses the heads above the threshold.

    Hovering shows a head's rank, score, score under the null, the threshold and the extra scores.
    """
    scores, detected = detection.scores, detection.detected
    named = title or f"Role {detection.role}: {scores.name}"
    figure = head_map(scores, title=named, caption=caption, notes=[_decision(detection, len(detected))])
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


def _decision(detection: Detection, n_detected: int) -> str:
    """The meaning of the contour and its error rate."""
    enclosed = f"enclosed: {n_detected} of {detection.scores.values.size:,} heads" if n_detected else "no head is"
    error_rate = f"{detection.fwer:.0%} of models without the role have any such head"
    literature = (
        ""
        if detection.literature_threshold is None
        else f"; usual threshold in the literature {style.number(detection.literature_threshold)}"
    )
    return f"{enclosed} above {style.number(detection.threshold)} ({error_rate}){literature}"


def _hover_text(detection: Detection, head: Head, rank: int) -> str:
    control, verdict = detection.control[head], "detected" if detection.scores[head] > detection.threshold else "not detected"
    lines = [
        style.score_lines(detection.scores, head),
        f"{verdict}: rank {rank}, threshold {style.number(detection.threshold)}",
        f"under the null {style.number(control)}" if control == control else "",
        *(
            f"{style.escape_markup(name)} {style.number(part[head])}"
            for name, part in detection.extra_scores.items()
            if part[head] == part[head]
        ),
    ]
    return "<br>".join(filter(None, lines))


def _contour(heads: set[Head]) -> tuple[list[float | None], list[float | None]]:
    """The edges between these heads and all others as separate lines, x and y."""
    x: list[float | None] = []
    y: list[float | None] = []
    for layer, head in sorted(heads):
        for side in (-0.5, 0.5):
            if (layer + round(2 * side), head) not in heads:
                x += [head - 0.5, head + 0.5, None]
                y += [layer + side, layer + side, None]
            if (layer, head + round(2 * side)) not in heads:
                x += [head + side, head + side, None]
                y += [layer - 0.5, layer + 0.5, None]
    return x, y
