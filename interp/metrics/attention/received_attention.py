"""How much later tokens look at a token: the mean weight of its column, over the rows that can see it.

``min_rows`` leaves out the last tokens of a causal text, whose columns are means of fewer rows: that of the very last is its weight
on itself.
"""

import torch
from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows


def column_sums(rows: AttentionRows, min_rows: int) -> tuple[Tensor, Tensor]:
    """Sum of each column, and how many rows see it, [batch head key] and [batch 1 key]; no rows where fewer than ``min_rows`` follow."""
    count = rows.n_seeing
    if rows.causal and min_rows > 1:
        from_here_on = rows.prompts.token_mask.sum(-1, keepdim=True) - rows.key_positions
        count = torch.where(from_here_on >= min_rows, count, 0)
    return rows.pattern.sum(2), count[:, None].float()


received_attention = AttentionMetric(
    name="received_attention",
    axis="key",
    unit="weight",
    bounds=(0.0, 1.0),
    function=column_sums,
    paper="arXiv 2410.10781 (importance of a position)",
    parameters={"min_rows": 1},
    undefined="no row sees the token, or fewer than min_rows",
)
