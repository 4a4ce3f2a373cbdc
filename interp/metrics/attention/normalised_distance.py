"""Attention distance as a share of the largest there is: 0 looks at itself, 1 at the farthest token; row t of a uniform head has 1/2.

A causal row t can look back t tokens, also where a sliding window hides some; a bidirectional row is measured by the farther end of its
text. Rows of different positions, and texts of different lengths, become comparable.
"""

import torch
from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows


def _normalised(rows: AttentionRows) -> Tensor:
    farthest = rows.query_positions
    if not rows.causal:
        farthest = farthest.maximum(rows.prompts.token_mask.sum(-1, keepdim=True) - 1 - farthest)
    return torch.where(farthest[:, None] > 0, rows.distance / farthest[:, None], torch.nan)


normalised_distance = AttentionMetric(
    name="normalised_distance",
    axis="query",
    unit="share of the largest distance",
    bounds=(0.0, 1.0),
    function=_normalised,
    paper="arXiv 2510.13554 §3, divided by the position",
    undefined="the first token of a causal text can look at itself alone",
)
