"""Share of rows whose most attended key is at each offset from the query, -``radius`` to ``radius``; negative is earlier.

A head's value is its largest share; the paper calls a head positional when 90% of its rows agree on offset -1 or +1. Rows
that see a single key do not count. Ties go to the earliest key.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric(
    "offset",
    "share of rows",
    paper="arXiv 1905.09418 (positional heads)",
    undefined="no row sees more than one key",
    per_head=lambda shares: shares.nanmean(1).amax(-1),
)
def argmax_offsets(rows: AttentionRows, radius: int = 3) -> tuple[Tensor, Tensor]:
    counted = rows.token_mask & (rows.n_visible > 1)
    offset = -rows.lag[0, 0] + rows.pattern.max(-1).indices - torch.arange(len(rows.lag), device=rows.pattern.device)
    is_offset = offset[..., None] == torch.arange(-radius, radius + 1, device=offset.device)
    return (is_offset & counted[:, None, :, None]).sum(2).float(), counted.sum(-1).float()[:, None, None]
