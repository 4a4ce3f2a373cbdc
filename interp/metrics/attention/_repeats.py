"""Attention to keys at, or after, an earlier occurrence of the query's token; shared by all heads of a query block."""

import torch
from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows, QueryBlock


def mass_after_repeats(rows: AttentionRows, after: int, pattern: Tensor) -> Tensor:
    """Mass of ``pattern`` on keys ``after`` positions behind an earlier occurrence of the query's token, [batch head query].
    NaN for queries without such a key. Unknown tokens, which stand for any word, neither repeat
    nor are such keys. Raises ValueError for images."""
    keys, has_any = rows.shared(_keys_after_repeats, after)
    return (pattern * keys[:, None]).sum(-1).masked_fill(~has_any[:, None], torch.nan)


def _keys_after_repeats(query_block: QueryBlock, after: int) -> tuple[Tensor, Tensor]:
    """Those keys as 1 and 0, [batch query key], and the queries that have any, [batch query]."""
    if query_block.prompts.grid is not None:
        raise ValueError("This metric compares tokens, but the prompts are images: use text.")
    column = torch.arange(query_block.keys.start, query_block.keys.stop, device=query_block.prompts.tokens.device) - after
    before = query_block.prompts.tokens[:, column.clamp(min=0)].masked_fill(query_block.key_positions < after, -1)
    if (unknown := query_block.prompts.unknown_id) is not None:
        before = before.masked_fill((before == unknown) | (query_block.tokens(query_block.keys) == unknown), -1)
    same = query_block.tokens(query_block.queries)[:, :, None] == before[:, None]
    same &= query_block.visible[:, 0]
    if after == 0 or not query_block.causal:  # a visible key after an occurrence is in order already
        same &= query_block.lag > -after
    keys = same.view(torch.uint8).float()  # much faster than from bool
    return keys, keys.amax(-1) > 0
