"""Attention from each token to itself, 0 to 1; the first token of a causal text sees nothing else and has 1."""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._near import weight_at_offset


def _self(rows: AttentionRows) -> Tensor:
    return weight_at_offset(rows, 0)


self_attention_score = AttentionMetric(
    name="self_attention_score",
    axis="query",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_self,
    paper="HeadVis, transformer-circuits.pub/2026/headvis",
)
