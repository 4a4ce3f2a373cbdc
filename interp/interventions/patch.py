"""Activation patching of heads: a corrupted prompt differs from the clean one in what the task asks, and in nothing else."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import ActivationSource, Intervention, Positions, intervention


@intervention(needs=("corrupted",))
def patch(heads: Iterable[Head], corrupted: ActivationSource, positions: Positions = "all") -> Intervention:
    """The head's output is replaced by its output on the corrupted prompt.

    z is that of the same example and positions in another run, ``corrupted``.
    """

    def corrupted_z(x, context):
        return corrupted.z(context.head, context.example_ids, context.positions)

    return Intervention("z", tuple(heads), corrupted_z, "patch", positions)
