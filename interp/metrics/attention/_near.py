"""Attention weights near the diagonal, read from the few columns they are in."""

import torch
from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows, QueryBlock


def weight_at_offset(rows: AttentionRows, lag: int) -> Tensor:
    """Weight of the key ``lag`` tokens before each query, [batch head query]; 0 if there is none."""
    query, key, absent = rows.shared(_cells_at_offset, lag)
    return rows.pattern[:, :, query, key].masked_fill(absent, 0.0)


def _cells_at_offset(block: QueryBlock, lag: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each query, the key ``lag`` tokens before it or another one, and whether it is another one since there is none, [query]."""
    query = torch.arange(block.queries.stop - block.queries.start, device=block.prompts.tokens.device)
    key, width = query + block.queries.start - lag - block.keys.start, block.keys.stop - block.keys.start
    return query, key.clamp(0, width - 1), (key < 0) | (key >= width)


def mass_in_window(rows: AttentionRows, window: int) -> Tensor:
    """Mass on the ``window`` nearest keys, the query's own included, [batch head query]; on both sides in bidirectional models."""
    first = max(rows.queries.start - window + 1, rows.keys.start) - rows.keys.start
    last = min(rows.queries.stop + window - 1, rows.keys.stop) - rows.keys.start
    near = (window - rows.lag[:, first:last].abs()).clamp(0, 1)  # distances are integers: 1 inside, 0 outside
    return (rows.pattern[..., first:last] * near).sum(-1)
