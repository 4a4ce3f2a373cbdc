"""Keys that stand at, or after, an earlier occurrence of a query's token: found once for all heads of a span."""

import torch
from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows, QueryBlock


def mass_after_repeats(rows: AttentionRows, after: int, pattern: Tensor) -> Tensor:
    """Mass of ``pattern`` on the keys ``after`` places behind an earlier occurrence of the query's token, [batch head query].

    NaN where the query sees no such key. Raises ValueError for images.
    """
    made, name = rows.query_block.made, ("keys after repeats", after)
    if name not in made:
        made[name] = _keys_after_repeats(rows.query_block, after)
    keys, some = made[name]
    return (pattern * keys[:, None]).sum(-1).masked_fill(~some[:, None], torch.nan)


def _keys_after_repeats(query_block: QueryBlock, after: int) -> tuple[Tensor, Tensor]:
    """Which keys those are, [batch query key], as 1 and 0; and which queries have any, [batch query]."""
    if query_block.prompts.grid is not None:
        raise ValueError(
            "Repeated tokens were asked for, and these prompts are images, whose patches have no token: give text."
        )
    column = torch.arange(query_block.keys.start, query_block.keys.stop, device=query_block.prompts.tokens.device) - after
    before = query_block.prompts.tokens[:, column.clamp(min=0)].masked_fill(query_block.key_positions < after, -1)
    same = query_block.tokens(query_block.queries)[:, :, None] == before[:, None]
    same &= query_block.visible[:, 0]
    if after == 0 or not query_block.causal:  # a key that is seen and comes after an occurrence needs no look at the order
        same &= query_block.lag > -after
    keys = same.view(torch.uint8).float()  # a good deal faster than from bool
    return keys, keys.amax(-1) > 0
