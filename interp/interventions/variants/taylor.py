"""Second-order Taylor attention (Deconstructing Attention, arXiv 2510.11602): ``1 + s + s^2 / 2`` in place of the exponential of a score.

Normalised jointly, as in the paper's equation; its recurrent form normalises each order by itself. There is no neutral setting.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention


@intervention(source="Deconstructing Attention, arXiv 2510.11602")
def taylor(heads: Iterable[Head], positions: Positions = "all") -> Intervention:
    """Weights become ``1 + s + s^2 / 2`` of each score ``s``, divided by their sum."""
    return Intervention("scores", tuple(heads), lambda s, at: (1 + s + s * s / 2).log(), "taylor", positions, alike=True)
