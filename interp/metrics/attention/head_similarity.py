"""Similarity of the attention rows of each pair of heads in a layer, averaged over rows; 1 for identical heads.

``cosine`` compares the weights; ``jensen_shannon`` is 1 minus the Jensen-Shannon distance in bits, computed pair by pair.
Both are 0 for heads that share no key, and near 1 for any two heads with the same sink. Rows with one visible key are left
out, since all heads agree there. A head's value is the mean over the other heads of its layer.
"""

from math import log

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


def _cosine(pattern: Tensor, counted: Tensor) -> Tensor:
    by_row = pattern.transpose(1, 2)
    products = by_row @ by_row.mT
    lengths = products.diagonal(dim1=-2, dim2=-1).sqrt()
    cosines = products / (lengths[..., None] * lengths[..., None, :])
    return torch.where(counted[..., None, None] > 0, cosines, 0).sum(1)


def _jensen_shannon(pattern: Tensor, counted: Tensor) -> Tensor:
    n_heads, pattern = pattern.shape[1], pattern.double()  # the root makes float32 wrong by 3e-4 near 0
    similarity = counted.sum(-1)[:, None, None].repeat(1, n_heads, n_heads)
    own = torch.xlogy(pattern, pattern).sum(-1)
    for one in range(n_heads):
        for other in range(one + 1, n_heads):
            middle = (pattern[:, one] + pattern[:, other]) / 2
            divergence = (own[:, one] + own[:, other]) / 2 - torch.xlogy(middle, middle).sum(-1)
            distance = (divergence.clamp(min=0) / log(2)).sqrt()
            similarity[:, one, other] = similarity[:, other, one] = ((1 - distance) * counted).sum(-1)
    return similarity


MEASURES = {"cosine": _cosine, "jensen_shannon": _jensen_shannon}


def _mean_over_others(table: Tensor) -> Tensor:
    n_heads = table.shape[-1]
    others = table.masked_fill(torch.eye(n_heads, dtype=torch.bool, device=table.device), torch.nan)
    return others.double().nanmean((1, 3))


@attention_metric(
    "head",
    "similarity",
    paper="arXiv 1906.04341 §6 (Jensen-Shannon between heads)",
    undefined="a text of one token, or a layer of one head",
    all_heads=True,
    per_head=_mean_over_others,
)
def head_similarity(rows: AttentionRows, measure: str = "cosine") -> tuple[Tensor, Tensor]:
    if measure not in MEASURES:
        raise ValueError(f"head_similarity:measure={measure} is unknown. There are: {', '.join(MEASURES)}.")
    counted = (rows.n_visible > 1) & rows.token_mask
    return MEASURES[measure](rows.pattern, counted.float()), counted.sum(-1)[:, None, None].float()
