"""Attention from each token to itself, 0 to 1; the first token of a causal text sees nothing else and has 1."""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention._near import weight_at_offset


@attention_metric("query", paper="HeadVis, transformer-circuits.pub/2026/headvis")
def self_attention_score(rows: AttentionRows) -> Tensor:
    return weight_at_offset(rows, 0)
