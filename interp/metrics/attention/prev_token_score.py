"""Attention from each token to the one before it, 0 to 1; near 1 for the heads that induction heads compose with."""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention._near import weight_at_offset


@attention_metric("query", paper="arXiv 2209.11895", undefined="the first token has none before it")
def prev_token_score(rows: AttentionRows) -> Tensor:
    return weight_at_offset(rows, 1).masked_fill((rows.query_positions < 1)[:, None], torch.nan)
