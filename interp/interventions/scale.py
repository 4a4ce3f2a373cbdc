"""Scaling of a head's output, the dose-response version of zero ablation."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention


@intervention()
def scale(heads: Iterable[Head], factor: float = 0.5, positions: Positions = "all") -> Intervention:
    """The head's output is multiplied by ``factor`` (1 is the identity, 0 is zero ablation)."""
    return Intervention(
        "z", tuple(heads), lambda x, context: x.new_zeros(()), f"scale {factor:g}", positions, strength=1 - factor
    )
