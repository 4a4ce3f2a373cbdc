"""Largest weight of each attention row; 1 for a single key, 1/(t+1) for row t of a uniform causal head.

The paper averages over all tokens but the end of the sentence.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("query", paper="arXiv 1905.09418 (confidence)")
def confidence(rows: AttentionRows) -> Tensor:
    return rows.pattern.amax(-1)
