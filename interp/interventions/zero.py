"""Zero ablation. Zero is far from what the head writes on any prompt; state it with every number."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention


@intervention()
def zero(heads: Iterable[Head], positions: Positions = "all") -> Intervention:
    """The head's output is set to zero.

    z becomes 0; the bias of the output projection stays.
    """
    return Intervention("z", tuple(heads), lambda x, context: x.new_zeros(()), "zero", positions, alike=True)
