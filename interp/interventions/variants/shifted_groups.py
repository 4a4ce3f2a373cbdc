"""Shifted sparse attention (LongLoRA, arXiv 2309.12307) with sink tokens (SinkLoRA, arXiv 2406.05678).

A text is cut into groups of ``size`` tokens and each query attends inside its group; the groups of every second head (odd index) are
shifted by half a group, so that neighbours are connected through two layers. The first ``sinks`` tokens stay visible to all.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, mask


@intervention(source="SinkLoRA, arXiv 2406.05678", neutral={"size": 1 << 31, "shift": False})
def shifted_groups(
    heads: Iterable[Head], size: int = 64, sinks: int = 4, shift: bool = True, positions: Positions = "all"
) -> Intervention:
    """The head attends inside groups of ``size`` tokens, shifted by half a group in odd heads, and to the first ``sinks`` tokens."""
    check_least("shifted_groups", 2, size=size)
    check_least("shifted_groups", 0, sinks=sinks)

    def keep(at):
        offset = size // 2 if shift and at.head.head % 2 else 0
        keys = at.keys[:, None]
        return ((at.positions + offset)[..., None] // size == (keys + offset) // size) | (keys < sinks)

    return mask(heads, f"shifted groups {size}+{sinks}", keep, positions, alike=False)
