"""Share of a head's attention received by its k most attended tokens, for each k up to ``columns``.

A head's value is the last entry. 1 for a head that attends to one token. Early tokens of a causal text are visible to more
rows, so a uniform head gives its first token (1 + 1/2 + ... + 1/T)/T, not 1/T: compare with that.
"""

import torch.nn.functional as F
from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._definition import attention_metric
from interp.tasks.token_batch import TokenBatch


def _top(shares: Tensor, prompts: TokenBatch, columns: int) -> Tensor:
    return shares.topk(min(columns, shares.shape[-1])).values.cumsum(-1)


def _last(shares: Tensor) -> Tensor:
    return shares[..., -1].nanmean(1)


@attention_metric(
    axis="rank",
    unit="share of attention",
    bounds=(0.0, 1.0),
    paper="Robustifying Token Attention (ICCV 2023)",
    per_head=_last,
    finish=_top,
)
def over_focus(rows: AttentionRows, columns: int = 10) -> tuple[Tensor, Tensor]:
    after = rows.prompts.token_mask.shape[1] - rows.keys.stop
    return F.pad(rows.pattern.sum(2), (rows.keys.start, after)), rows.token_mask.sum(-1).float()[:, None, None]
