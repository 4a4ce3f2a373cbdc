"""Scaling of a head's output, the dose-response version of zero ablation."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention


@intervention()
def scale(heads: Iterable[Head], factor: float = 0.5, positions: Positions = "all") -> Intervention:
    """The head's output is multiplied by ``factor`` (1 is the identity, 0 is zero ablation)."""
    label, strength = f"scale {factor:g}", 1 - factor
    return Intervention("z", tuple(heads), lambda x, context: x.new_zeros(()), label, positions, strength, alike=True)
