"""A Toeplitz factor on the pattern (URPE, arXiv 2205.13401): each weight times a number that depends on the distance alone.

The rows are not normalised again: this is what lets a relative-position head tell equal tokens apart. The paper learns a factor for each
distance; here it is ``decay ** distance``.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import lags


@intervention(source="Universal RPE, arXiv 2205.13401", neutral={"decay": 1.0})
def toeplitz(heads: Iterable[Head], decay: float = 0.9, positions: Positions = "all") -> Intervention:
    """Every weight is multiplied by ``decay ** distance``, and rows are not normalised again."""
    if not decay > 0:
        raise ValueError(f"toeplitz: decay={decay:g} is not positive: give 1 for the unchanged head.")
    return Intervention(
        "pattern",
        tuple(heads),
        lambda x, at: x if decay == 1 else x * decay ** lags(at).abs(),
        f"toeplitz {decay:g}",
        positions,
        alike=True,
    )
