"""Mixture-of-head attention (MoH, arXiv 2410.11842): each token keeps the outputs of a few heads of a layer.

The heads with the largest queries at a token stay and the rest write nothing, as in the paper's router for trained models. Its learned
router, shared heads and weights are left out; heads that are not changed always stay.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, uniform


@intervention(source="MoH, arXiv 2410.11842", neutral={"k": 1 << 20})
def mixture_of_heads(
    heads: Iterable[Head], k: int = 4, at_random: bool = False, seed: int = 0, positions: Positions = "all"
) -> Intervention:
    """At each token the ``k`` heads of the layer with the largest queries stay (or ``k`` drawn ``at_random``); others write nothing."""
    check_least("mixture_of_heads", 1, k=k)
    check_least("mixture_of_heads", 0, seed=seed)

    def z(x, at):
        import torch

        norms = at.inputs.query_norms()[:, :, at.query_slice]
        if at_random:
            drawn = [uniform(at.positions, seed, at.head.layer * norms.shape[1] + head) for head in range(norms.shape[1])]
            norms = torch.stack(drawn, 1)
        own = norms[:, at.head.head]
        larger = (norms > own[:, None]).sum(1)
        return x.where((larger < k)[..., None], 0)

    label = f"{k} heads a token" + " at random" * at_random
    return Intervention("z", tuple(heads), z, label, positions, uses_inputs=True)
