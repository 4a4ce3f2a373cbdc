"""What changed between two runs: one number of every head after, minus the same number before."""

from __future__ import annotations

import plotly.graph_objects as go

from interp.figures.head_map import head_map
from interp.heads import HeadScores


def difference_map(after: HeadScores, before: HeadScores, *, title: str | None = None) -> go.Figure:
    """Heat map of ``after - before``, diverging with 0 in the middle; heads without a number in either are grey.

    Raises ValueError for scores of different models, metrics, units or sizes.
    """
    for what, one, other in (
        ("models", after.record.model, before.record.model),
        ("metrics", after.record.metric, before.record.metric),
        ("numbers", after.name, before.name),
        ("units", after.unit, before.unit),
        ("sizes", after.values.shape, before.values.shape),
    ):
        if one != other:
            raise ValueError(
                f"A difference needs two runs of one model and metric, and these have the {what} {one} and {other}."
            )
    reason = after.reason or before.reason
    change = HeadScores(f"change of {after.name}", after.values - before.values, after.unit, (None, None), after.record, reason)
    caption = f"{after.record.caption()} minus {before.record.caption()}"
    return head_map(change, title=title or f"Difference in {after.name}", caption=caption)
