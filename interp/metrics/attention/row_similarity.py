"""Mean cosine between each attention row of a head and its mean row; 1 when all tokens attend to the same few keys.

Weights up to twice the uniform share (2 / number of visible keys; in the mean row, 2 / text length) are set to 0 first, so
that diffuse rows do not count as similar; a row without larger weights has cosine 0. In causal texts, whose rows see
different keys, only the second half is compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.tasks.token_batch import TokenBatch


def cosine_sums(rows: AttentionRows, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """The sums behind ``mean_cosine`` for rows ``pattern`` [batch head query key], and the number of rows [batch 1 1]. The sum
    of the unit-norm rows, in which the cosine is linear, and that of the rows, side by side, [batch head 2*pos]."""
    counted = rows.token_mask
    if rows.causal:
        counted = counted & (2 * rows.query_positions >= rows.prompts.token_mask.sum(-1, keepdim=True))
    once = counted[:, None, None].float()  # [batch 1 1 query]
    large = F.threshold(pattern * rows.n_visible[:, None, :, None], 2, 0)  # in uniform shares; scale does not matter
    length = large.norm(dim=-1)[:, :, None]
    sums = torch.cat([torch.where(length > 0, once / length, 0) @ large, once @ pattern], 2)
    sums = F.pad(sums, (rows.keys.start, rows.prompts.token_mask.shape[1] - rows.keys.stop))
    return sums.flatten(2), counted.sum(-1).float()[:, None, None]


def mean_cosine(means: Tensor, prompts: TokenBatch) -> Tensor:
    """The mean cosine with the mean row, [n_layers batch head 1], from the means of ``cosine_sums``."""
    units, mean_row = means.chunk(2, -1)
    mean_row = mean_row * (mean_row > 2 / prompts.token_mask.sum(-1)[:, None, None])
    length = mean_row.norm(dim=-1, keepdim=True)
    return (units * mean_row).sum(-1, keepdim=True) / length.where(length > 0, 1)


@attention_metric(
    "text",
    "cosine",
    paper="Robustifying Token Attention (ICCV 2023), for one head",
    undefined="a text of one token has no second half",
    finish=mean_cosine,
)
def row_similarity(rows: AttentionRows) -> tuple[Tensor, Tensor]:
    return cosine_sums(rows, rows.pattern)
