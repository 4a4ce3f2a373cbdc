"""Attention distance divided by the largest possible one, 0 to 1; a uniform causal head has 1/2.

The largest distance of causal row t is t tokens, even if a sliding window hides some; of a bidirectional row, the farther end
of its text. Rows at different positions and texts of different lengths become comparable.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric(
    "query",
    "share of the largest distance",
    paper="arXiv 2510.13554 §3, divided by the position",
    undefined="the first token of a causal text sees only itself",
)
def normalised_distance(rows: AttentionRows) -> Tensor:
    farthest = rows.query_positions
    if not rows.causal:
        farthest = farthest.maximum(rows.prompts.token_mask.sum(-1, keepdim=True) - 1 - farthest)
    return torch.where(farthest[:, None] > 0, rows.distance / farthest[:, None], torch.nan)
