"""Attention from each token to itself, 0 to 1; the first token of a causal text sees nothing else and has 1."""

from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._definition import attention_metric
from interp.metrics.attention._near import weight_at_offset


@attention_metric(axis="query", unit="weight", bounds=(0.0, 1.0), paper="HeadVis, transformer-circuits.pub/2026/headvis")
def self_attention_score(rows: AttentionRows) -> Tensor:
    return weight_at_offset(rows, 0)
