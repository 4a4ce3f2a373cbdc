"""Attention weights near the diagonal, read from the few columns they are in."""

import torch
from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows


def weight_at_offset(rows: AttentionRows, lag: int) -> Tensor:
    """Weight of the key ``lag`` tokens before each query, [batch head query]; 0 if there is none."""
    query = torch.arange(rows.queries.start, rows.queries.stop, device=rows.pattern.device)
    key = query - lag - rows.keys.start
    width = rows.pattern.shape[-1]
    weights = rows.pattern[:, :, query - rows.queries.start, key.clamp(0, width - 1)]
    return weights.masked_fill((key < 0) | (key >= width), 0.0)


def mass_in_window(rows: AttentionRows, window: int) -> Tensor:
    """Mass on the ``window`` nearest keys, the query's own included, [batch head query]; on both sides in bidirectional models."""
    first = max(rows.queries.start - window + 1, rows.keys.start) - rows.keys.start
    last = min(rows.queries.stop + window - 1, rows.keys.stop) - rows.keys.start
    near = (window - rows.lag[:, first:last].abs()).clamp(0, 1)  # distances are integers: 1 inside, 0 outside
    return (rows.pattern[..., first:last] * near).sum(-1)
