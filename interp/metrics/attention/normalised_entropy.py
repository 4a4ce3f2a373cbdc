"""Entropy of each attention row divided by ln(number of visible keys); 0 for a single key, 1 for uniform."""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric(
    "query",
    "share of the largest entropy",
    paper="Shannon 1948 (efficiency); for attention arXiv 1906.04284",
    undefined="the row sees a single key",
)
def normalised_entropy(rows: AttentionRows) -> Tensor:
    keys = rows.n_visible[:, None]
    return torch.where(keys > 1, rows.entropy / keys.log(), torch.nan)
