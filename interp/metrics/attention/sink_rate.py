"""Share of texts in which a head has a sink at one position, a mean weight above ``epsilon`` over the rows that can see it.

Two values per text, the mean weight and whether it exceeds ``epsilon``; a head's value is the share of texts where it does,
and its mean over all heads is Gu's sink metric. Report the text length T: a uniform head has 0.074 at T = 64 and 0.340, above
epsilon, at T = 8. Rows beyond a sliding window count as weight 0.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.tasks.token_batch import TokenBatch


def _passes(importance: Tensor, prompts: TokenBatch, position: int, epsilon: float) -> Tensor:
    return torch.cat([importance, torch.where(importance.isnan(), importance, (importance > epsilon).float())], -1)


@attention_metric(
    "importance",
    "share of texts",
    paper="arXiv 2410.10781 (sink metric)",
    undefined="the text ends before the position",
    per_head=lambda table: table[..., 1].nanmean(1),
    finish=_passes,
)
def sink_rate(rows: AttentionRows, position: int = 0, epsilon: float = 0.3) -> tuple[Tensor, Tensor]:
    wanted = rows.key_positions == position
    columns = wanted.any(0).nonzero()[:, 0]
    weight = (rows.pattern[..., columns] * wanted[:, None, None, columns]).sum((2, 3))
    counted = rows.token_mask & (rows.query_positions >= position) if rows.causal else rows.token_mask
    return weight[..., None], counted.sum(-1).float()[:, None, None]
