"""Variance of the query-key distance within each attention row, in tokens squared.

0 for a head that attends to one key, however far; (n^2 - 1) / 12 for a uniform row of n keys. HeadVis's ``qk_distance_variance``
pools all rows of a head: it is the mean of this one plus the variance of ``attention_distance`` over the rows.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("query", "tokens²", (0.0, None), paper="HeadVis, transformer-circuits.pub/2026/headvis")
def distance_variance(rows: AttentionRows) -> Tensor:
    distance = rows.lag if rows.causal else rows.lag.abs()
    # E[d^2] - E[d]^2 would cancel: a narrow peak 30,000 tokens back has variance 1 and squares of 1e9.
    return (distance - rows.distance[..., None]).square_().mul_(rows.pattern).sum(-1)
