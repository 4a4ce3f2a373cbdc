"""Attention between the patches of images: other tokens (CLS, registers) are dropped and rows are normalised again."""

import torch
from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows


def patch_attention(rows: AttentionRows, metric: str) -> tuple[Tensor, Tensor]:
    """Weights of patches on patches, [batch head query patch], NaN in rows of other tokens and in rows that look at no patch; and how
    many rows and columns lie between them, [2 query patch].

    Raises ValueError when the prompts are no images.
    """
    if rows.prompts.grid is None:
        raise ValueError(
            f"{metric} needs the grid of an image's patches, and these prompts are text: give pixels to a vision model."
        )
    down, right, before = rows.prompts.grid
    query = torch.arange(rows.queries.start, rows.queries.stop, device=rows.pattern.device) - before
    key = torch.arange(rows.keys.start, rows.keys.stop, device=rows.pattern.device) - before
    is_patch = (key >= 0) & (key < down * right)
    weights, key = rows.pattern[..., is_patch], key[is_patch]
    apart = torch.stack([query[:, None] // right - key // right, query[:, None] % right - key % right]).abs()
    mass = weights.sum(-1, keepdim=True)
    known = ((query >= 0) & (query < down * right))[:, None] & (mass > 1e-6)
    return (weights / mass).masked_fill(~known, torch.nan), apart
