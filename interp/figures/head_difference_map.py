"""Change between two runs: one number per head after, minus the same number before."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.figures.head_map import head_map
from interp.heads import HeadScores


def head_difference_map(after: HeadScores, before: HeadScores, *, title: str | None = None) -> Figure:
    """Heat map of ``after - before``, diverging around 0; heads without a number in either are grey.

    The two may come from different models, such as two checkpoints: heads are matched by layer and index. Raises ValueError for scores
    of different metrics, units or shapes.
    """
    for what, one, other in (
        ("metrics", after.record.metric, before.record.metric),
        ("names", after.name, before.name),
        ("units", after.unit, before.unit),
        ("shapes", after.values.shape, before.values.shape),
    ):
        if one != other:
            raise ValueError(
                f"A difference needs two scores of the same metric, unit and shape, and these have the {what} {one} and {other}."
            )
    reason = after.nan_reason or before.nan_reason
    change = HeadScores(f"change of {after.name}", after.values - before.values, after.unit, (None, None), after.record, reason)
    caption = f"{after.record.caption()} minus {before.record.caption()}"
    figure = head_map(change, title=title or f"Difference in {after.name}", caption=caption)
    heatmap: Any = figure.data[0]
    hover: Any = np.array(heatmap.hovertext, dtype=object)
    for head in change.top(change.values.size):
        label, change_line = hover[head].split("<br>", 1)
        hover[head] = f"{label}<br>{style.number(after[head])} after, {style.number(before[head])} before<br>{change_line}"
    heatmap.hovertext = hover
    return figure
