"""WAAD, windowed average attention distance, the mean distance from query to key capped at ``window``, in tokens.

Near 0-1 inside a chunk that continues from the last tokens, near ``window`` where a head attends beyond it. The value belongs
to the row of the token itself, which predicts the next one. The WAAD of a group of heads is their mean.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("query", "tokens", (0.0, None), paper="arXiv 2510.13554 §3 (WAAD)")
def windowed_distance(rows: AttentionRows, window: int = 10) -> Tensor:
    if window < 1:
        raise ValueError(f"windowed_distance:window={window} is too small: use at least 1.")
    first, last = (at - rows.keys.start for at in (rows.queries.start, rows.queries.stop))
    near = slice(max(first - window + 1, 0), last if rows.causal else last + window - 1)
    short = (window - rows.lag[:, near].abs()).clamp(min=0)  # how much closer than the window each key is
    return window * rows.pattern.sum(-1) - (rows.pattern[..., near] * short).sum(-1)
