"""WAAD, windowed average attention distance, the mean distance from query to key capped at ``window``, in tokens.

Near 0-1 inside a chunk that continues from the last tokens, near ``window`` where a head attends beyond it. The value belongs
to the row of the token itself, which predicts the next one. The WAAD of a group of heads is their mean.
"""

from torch import Tensor

from interp.engine.attention.attention_rows import QueryBlock
from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("query", "tokens", (0.0, None), paper="arXiv 2510.13554 §3 (WAAD)")
def windowed_distance(rows: AttentionRows, window: int = 10) -> Tensor:
    if window < 1:
        raise ValueError(f"windowed_distance:window={window} is too small: use at least 1.")
    near, short = rows.shared(_closer_keys, window)
    return window * rows.mass - (rows.pattern[..., near] * short).sum(-1)


def _closer_keys(block: QueryBlock, window: int) -> tuple[slice, Tensor]:
    """The keys nearer than ``window`` to any query, and how much nearer each is to each query, [query key]."""
    first, last = (at - block.keys.start for at in (block.queries.start, block.queries.stop))
    near = slice(max(first - window + 1, 0), last if block.causal else last + window - 1)
    return near, (window - (block.query_columns[:, None] - block.key_columns[near]).abs()).clamp(min=0)
