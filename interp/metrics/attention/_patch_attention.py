"""Attention between image patches, with other tokens (CLS, registers) dropped and rows renormalised."""

import torch
from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows


def patch_attention(rows: AttentionRows, metric: str) -> tuple[Tensor, Tensor]:
    """Weights from patch to patch, [batch head query patch], and the row and column offsets between them, [2 query patch]. Rows
    of other tokens, and rows without weight on any patch, are NaN. Raises ValueError for prompts that are not images."""
    if rows.prompts.grid is None:
        raise ValueError(f"{metric} needs image patches, but the prompts are text: use images and a vision model.")
    down, right, before = rows.prompts.grid
    query = torch.arange(rows.queries.start, rows.queries.stop, device=rows.pattern.device) - before
    key = torch.arange(rows.keys.start, rows.keys.stop, device=rows.pattern.device) - before
    is_patch = (key >= 0) & (key < down * right)
    weights, key = rows.pattern[..., is_patch], key[is_patch]
    offsets = torch.stack([query[:, None] // right - key // right, query[:, None] % right - key % right]).abs()
    mass = weights.sum(-1, keepdim=True)
    known = ((query >= 0) & (query < down * right))[:, None] & (mass > 1e-6)
    return (weights / mass).masked_fill(~known, torch.nan), offsets
