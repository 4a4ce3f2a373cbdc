"""How attention falls off across an image: the mass that a patch gives to the ring of patches k hops away, for k = 0, 1, 2 ...

Hops count the larger of the rows and columns between two patches. The mean over patches of their ring mass sums to 1 over the hops;
with ``density`` each ring's mass is divided by its number of patches inside the image, and patches without such a ring do not
count, so that a uniform head is flat. Columns of other tokens (CLS, registers) are dropped and the rows normalised again. The study
of vision transformers that it follows gives no formula; this one is ours.
"""

import torch
from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._patches import patch_attention


def _hops(rows: AttentionRows, density: bool) -> tuple[Tensor, Tensor]:
    weights, apart = patch_attention(rows, "hop_profile")
    hops = apart.amax(0)
    known = ~weights.isnan().any(-1, keepdim=True)
    rings = weights.new_zeros(len(hops), max(rows.prompts.grid[:2]))
    size = rings.scatter_add(-1, hops, torch.ones_like(hops, dtype=rings.dtype))
    mass = rings.expand(*weights.shape[:3], -1).scatter_add(-1, hops.expand_as(weights), weights.nan_to_num(0.0))
    if density:
        mass, known = mass / size.clamp(min=1), known & (size > 0)
    return mass.sum(2), known.expand_as(mass).sum(2).float()


hop_profile = AttentionMetric(
    name="hop_profile",
    axis="hop",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_hops,
    paper="arXiv 2303.13731 (spatial profile of attention strength)",
    parameters={"density": False},
    needs=("grid",),
    undefined="no patch has a ring so far away",
)
