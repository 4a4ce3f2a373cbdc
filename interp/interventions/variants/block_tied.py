"""Hierarchical self-attention (arXiv 2509.15448): one weight for all keys of a block, as close to the head's own rows as can be.

The tied row that is closest in KL divergence from the head's own row gives each key the mean weight of its block's visible keys. Blocks
of one level; the paper ties over a tree.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least


@intervention(source="Hierarchical Self-Attention, arXiv 2509.15448", neutral={"size": 1})
def block_tied(heads: Iterable[Head], size: int = 8, positions: Positions = "all") -> Intervention:
    """All visible keys of a block of ``size`` tokens share the mean of their weights."""
    check_least("block_tied", 1, size=size)

    def rows(x, at):
        if size == 1:
            return x
        seen = at.visible.expand_as(x)
        block = (at.keys.clamp(min=0) // size).expand(len(x), -1)[:, None].expand_as(x)
        sums = x.new_zeros(*x.shape[:2], int(block.max()) + 1)
        total, count = (sums.scatter_add(-1, block, part) for part in (x * seen, seen.to(x)))
        return (total / count.clamp(min=1)).gather(-1, block) * seen

    return Intervention("pattern", tuple(heads), rows, f"block tied {size}", positions, alike=True)
