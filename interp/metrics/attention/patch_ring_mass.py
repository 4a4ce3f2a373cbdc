"""Attention mass from an image patch to the ring of patches at each distance on the patch grid.

The distance is the larger of the row and column offsets. The mean over patches sums to 1 over the rings; with ``density`` each
ring's mass is divided by its number of patches inside the image, and patches without the ring do not count, so a uniform head
is flat. Other tokens (CLS, registers) are dropped and the rows renormalised. The study gives no formula; this is ours.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention._patch_attention import patch_attention


@attention_metric(
    "ring",
    paper="arXiv 2303.13731 (spatial profile of attention strength)",
    needs=("grid",),
    undefined="no patch has a ring at this distance",
)
def patch_ring_mass(rows: AttentionRows, density: bool = False) -> tuple[Tensor, Tensor]:
    weights, offsets = patch_attention(rows, "patch_ring_mass")
    ring = offsets.amax(0)
    known = ~weights.isnan().any(-1, keepdim=True)
    zeros = weights.new_zeros(len(ring), max(rows.prompts.grid[:2]))
    size = zeros.scatter_add(-1, ring, torch.ones_like(ring, dtype=zeros.dtype))
    mass = zeros.expand(*weights.shape[:3], -1).scatter_add(-1, ring.expand_as(weights), weights.nan_to_num(0.0))
    if density:
        mass, known = mass / size.clamp(min=1), known & (size > 0)
    return mass.sum(2), known.expand_as(mass).sum(2).float()
