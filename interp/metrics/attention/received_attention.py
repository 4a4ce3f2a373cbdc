"""Mean attention a token receives from the rows that can see it, 0 to 1.

``min_rows`` leaves out the last tokens of a causal text, whose means cover fewer rows; the very last sees itself alone.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric(
    "key", paper="arXiv 2410.10781 (importance of a position)", undefined="seen by no row, or by fewer than min_rows"
)
def received_attention(rows: AttentionRows, min_rows: int = 1) -> tuple[Tensor, Tensor]:
    """Sum of each column, [batch head key], and the number of rows that see it, [batch 1 key], 0 if fewer than ``min_rows``."""
    count = rows.n_seeing
    if rows.causal and min_rows > 1:
        n_later = rows.prompts.token_mask.sum(-1, keepdim=True) - rows.key_positions
        count = torch.where(n_later >= min_rows, count, 0)
    return rows.pattern.sum(2), count[:, None].float()
