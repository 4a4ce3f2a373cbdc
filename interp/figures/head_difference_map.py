"""What changed between two runs: one number of every head after, minus the same number before."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from interp.figures import style
from interp.figures.head_map import head_map
from interp.heads import Head, HeadScores


def head_difference_map(after: HeadScores, before: HeadScores, *, title: str | None = None) -> go.Figure:
    """Heat map of ``after - before``, diverging with 0 in the middle; heads without a number in either are grey.

    The two may be of different models, such as two checkpoints: heads are compared by their place. Raises ValueError for scores of
    different metrics, units or sizes.
    """
    for what, one, other in (
        ("metrics", after.record.metric, before.record.metric),
        ("numbers", after.name, before.name),
        ("units", after.unit, before.unit),
        ("sizes", after.values.shape, before.values.shape),
    ):
        if one != other:
            raise ValueError(
                f"A difference needs the same number of the same heads, and these have the {what} {one} and {other}."
            )
    reason = after.nan_reason or before.nan_reason
    change = HeadScores(f"change of {after.name}", after.values - before.values, after.unit, (None, None), after.record, reason)
    caption = f"{after.record.caption()} minus {before.record.caption()}"
    figure = head_map(change, title=title or f"Difference in {after.name}", caption=caption)
    cells: Any = figure.data[0]
    hover: Any = np.array(cells.hovertext, dtype=object)
    for head in (Head(*map(int, place)) for place in np.argwhere(~np.isnan(change.values))):
        label, told = hover[head].split("<br>", 1)
        hover[head] = f"{label}<br>{style.number(after[head])} after, {style.number(before[head])} before<br>{told}"
    cells.hovertext = hover
    return figure
