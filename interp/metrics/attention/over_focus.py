"""Share of a head's attention received by its k most attended tokens, for each k up to ``columns``.

A head's value is the last entry. 1 for a head that attends to one token. Early tokens of a causal text are visible to more
rows, so a uniform head gives its first token (1 + 1/2 + ... + 1/T)/T, not 1/T: compare with that.
"""

import torch.nn.functional as F
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.tasks.token_batch import TokenBatch


def _top(shares: Tensor, prompts: TokenBatch, columns: int) -> Tensor:
    return shares.topk(min(columns, shares.shape[-1])).values.cumsum(-1)


@attention_metric(
    "rank",
    "share of attention",
    paper="Robustifying Token Attention (ICCV 2023)",
    per_head=lambda shares: shares[..., -1].nanmean(1),
    finish=_top,
)
def over_focus(rows: AttentionRows, columns: int = 10) -> tuple[Tensor, Tensor]:
    after = rows.prompts.token_mask.shape[1] - rows.keys.stop
    return F.pad(rows.pattern.sum(2), (rows.keys.start, after)), rows.token_mask.sum(-1).float()[:, None, None]
