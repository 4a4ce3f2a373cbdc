"""How few tokens take a head's attention: entry k-1 is the share of all its attention that its k most attended tokens receive.

The number of a head is the last entry, that of the ``columns`` most attended tokens. 1 for a head parked on one token. Early tokens of
a causal text are seen by more rows: a uniform head gives its first token (1 + 1/2 + ... + 1/T)/T, not 1/T. Compare with that.
"""

import torch.nn.functional as F
from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.tasks.token_batch import TokenBatch


def _shares(rows: AttentionRows, columns: int) -> tuple[Tensor, Tensor]:
    after = rows.prompts.token_mask.shape[1] - rows.keys.stop
    return F.pad(rows.pattern.sum(2), (rows.keys.start, after)), rows.token_mask.sum(-1).float()[:, None, None]


def _top(shares: Tensor, prompts: TokenBatch, columns: int) -> Tensor:
    return shares.topk(min(columns, shares.shape[-1])).values.cumsum(-1)


def _last(shares: Tensor) -> Tensor:
    return shares[..., -1].nanmean(1)


over_focus = AttentionMetric(
    name="over_focus",
    axis="rank",
    unit="share of attention",
    bounds=(0.0, 1.0),
    function=_shares,
    paper="Robustifying Token Attention (ICCV 2023)",
    parameters={"columns": 10},
    per_head=_last,
    finish=_top,
)
