"""Blocked local attention with a halo (HaloNet, arXiv 2103.12731): a query attends inside its block and to some keys around it."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, mask


@intervention(source="HaloNet, arXiv 2103.12731", neutral={"size": 1 << 30})
def blocked(heads: Iterable[Head], size: int = 32, halo: int = 0, positions: Positions = "all") -> Intervention:
    """The head attends to its own block of ``size`` tokens and to ``halo`` tokens before (in an encoder also after) it."""
    check_least("blocked", 1, size=size)
    check_least("blocked", 0, halo=halo)

    def keep(at):
        first = (at.positions // size * size)[..., None]
        keys = at.keys[:, None]
        return (keys >= first - halo) & (keys < first + size + halo)

    return mask(heads, f"blocked {size}+{halo}", keep, positions)
