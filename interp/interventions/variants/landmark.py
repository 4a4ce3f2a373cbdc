"""Landmark attention on a model without landmarks (arXiv 2305.16300): a block's weight comes from one representative key.

A query sees the tokens of its own block, and for each earlier block its representative: one softmax over both. The weight of a
representative is shared among the other tokens of its block by a softmax of their own; with ``representative=last`` that token ends
with weight 0. ``top`` keeps the blocks whose representatives weigh most.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import block_means, check_least


@intervention(source="Landmark Attention, arXiv 2305.16300", neutral={"size": 1 << 30})
def landmark(
    heads: Iterable[Head], size: int = 16, top: int = 1 << 20, representative: str = "last", positions: Positions = "all"
) -> Intervention:
    """The weight of each block of ``size`` tokens is that of its ``representative`` key, last or mean; ``top`` blocks are kept."""
    check_least("landmark", 2, size=size)
    check_least("landmark", 1, top=top)
    if representative not in ("last", "mean"):
        raise ValueError(f"landmark: representative={representative!r} is neither last nor mean.")

    def scores(s, at):
        import torch

        n_blocks = int(at.keys.max()) // size + 1
        if n_blocks == 1:
            return s
        block = (at.keys.clamp(min=0) // size).expand(len(s), -1)[:, None].expand_as(s)
        own = (at.positions // size)[..., None]
        seen, earlier = at.visible.expand_as(s), (block < own) & at.visible
        last = at.keys[:, None] % size == size - 1
        if representative == "last":
            weight = s.new_full((*s.shape[:2], n_blocks), -torch.inf)
            weight = weight.scatter_reduce(-1, block, s.masked_fill(~(earlier & last), -torch.inf), "amax")
            members = earlier & ~last
        else:
            q, means = at.inputs.q[:, at.query_slice], at.memory["means"][:, :n_blocks]
            weight = (q @ means.mT * at.inputs.scale).masked_fill(torch.arange(n_blocks, device=s.device) >= own, -torch.inf)
            members = earlier
        if top < n_blocks:
            weight = weight.masked_fill(weight < weight.topk(top, -1).values[..., -1:], -torch.inf)
        within = s.masked_fill(~members, -torch.inf)
        largest = s.new_full(weight.shape, -torch.inf).scatter_reduce(-1, block, within, "amax").clamp(min=-1e30)
        total = torch.zeros_like(weight).scatter_add(-1, block, (within - largest.gather(-1, block)).exp())
        shared = weight.gather(-1, block) + within - (largest + total.log()).gather(-1, block)
        return torch.where(block == own, s, shared.nan_to_num(nan=-1e30, neginf=-1e30)).masked_fill(~seen, -1e30)

    mean = representative == "mean"
    label = f"landmark {representative} {size}"
    return Intervention(
        "scores", tuple(heads), scores, label, positions, uses_inputs=mean, prepare=block_means(size) if mean else None
    )
