"""Bi-level routing attention (BiFormer, arXiv 2303.08810): regions of queries attend to the regions of keys whose means match best.

Regions are ``size`` consecutive tokens; the mean query of a region chooses its ``top`` regions among itself and the earlier ones. All
tokens of a query region count for its mean, so that rows depend on later tokens of their region.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import HeadInputs, Intervention, Memory, Positions, intervention
from interp.interventions.variants._rows import check_least, keep_keys


@intervention(source="BiFormer, arXiv 2303.08810", neutral={"top": 1 << 20})
def region_top_keys(heads: Iterable[Head], size: int = 16, top: int = 4, positions: Positions = "all") -> Intervention:
    """All queries of a region of ``size`` tokens attend to the same ``top`` regions, chosen by mean queries and keys."""
    check_least("region_top_keys", 1, size=size, top=top)

    def prepare(inputs: HeadInputs, memory: Memory) -> None:
        import torch

        tokens, block = inputs.token_mask[..., None], (inputs.key_positions.clamp(min=0) // size).expand(len(inputs.k), -1)
        n_blocks = int(block.max()) + 1
        means = [
            x.new_zeros(len(x), n_blocks, x.shape[-1]).scatter_add(1, block[..., None].expand_as(x), x * tokens)
            for x in (inputs.q, inputs.k)
        ]
        order = torch.arange(n_blocks, device=inputs.k.device)
        scores = (means[0] @ means[1].mT).masked_fill(order > order[:, None], -torch.inf).nan_to_num(neginf=-1e30)
        best = scores.topk(min(top, n_blocks), -1).indices
        memory["regions"] = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)

    def rows(x, at):
        regions = at.memory["regions"]
        query, key = (t.clamp(min=0).expand(len(x), -1) // size for t in (at.positions, at.keys))
        kept = regions.gather(1, query.clamp(max=regions.shape[1] - 1)[..., None].expand(-1, -1, regions.shape[2]))
        return keep_keys(
            x, kept.gather(2, key.clamp(max=regions.shape[2] - 1)[:, None].expand_as(x)), at.visible, at.sink_share
        )

    label = f"region top {top}x{size}"
    return Intervention("pattern", tuple(heads), rows, label, positions, uses_inputs=True, prepare=prepare, reads_to_end=True)
