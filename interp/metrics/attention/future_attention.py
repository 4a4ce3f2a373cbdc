"""FAI, future attention influence, the mean weight a token receives from tokens ``horizon_min`` to ``horizon_max`` later.

``horizon_max=0`` extends to the end of the text. ``positions`` selects the rows: ``all``, or a mark such as ``response``. The
mean is over rows that can see the token; the last ``horizon_min`` tokens have none and are undefined, not 0. The FAI of a group
of heads is their mean. The paper's analysis extends to the end of the response, its training 10 to 50 tokens ahead.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("key", paper="arXiv 2510.13554 §3 (FAI)", undefined="no row in the horizon of the token")
def future_attention(
    rows: AttentionRows, horizon_min: int = 10, horizon_max: int = 0, positions: str = "all"
) -> tuple[Tensor, Tensor]:
    if horizon_min < 0 or 0 < horizon_max < horizon_min:
        given = f"future_attention:horizon_min={horizon_min}:horizon_max={horizon_max}"
        raise ValueError(f"{given} is invalid: use 0 <= horizon_min <= horizon_max, or horizon_max=0.")
    counted = rows.prompts.position_mask(positions)[:, rows.queries]
    first, last = rows.queries.start - rows.keys.start, rows.queries.stop - 1 - rows.keys.start
    # Keys before ``edge`` are in the horizon of all these rows or, with ``horizon_max``, of none; keys after it are in none.
    start = max(first - horizon_max if horizon_max else first - horizon_min + 1, 0)
    edge = slice(start, max(last - horizon_min + 1, start))
    lag = rows.lag[:, edge]
    within = (lag >= horizon_min) & (lag <= horizon_max if horizon_max else True) & counted[:, :, None]
    sums, counts = torch.zeros_like(rows.pattern[:, :, 0]), torch.zeros_like(rows.pattern[:, :1, 0])
    sums[..., edge] = (rows.pattern[..., edge] * within[:, None]).sum(2)
    counts[..., edge] = (within & rows.visible[:, 0, :, edge]).sum(1)[:, None]
    if not horizon_max:
        once, visibility = counted[:, None].float(), rows.visibility
        sums[..., :start] = (once[:, None] @ rows.pattern[..., :start])[:, :, 0]
        n_rows = once.sum(-1, keepdim=True) if visibility is None else once @ visibility[:, 0, :, :start].float()
        counts[..., :start] = n_rows
    return sums, counts
