"""Mixture of block attention (MoBA, arXiv 2502.13189): the blocks of keys whose mean key scores highest for a query.

``top`` blocks of ``size`` keys for each query, its own always among them (BiFormer and landmark retrieval choose by mean keys in the same
way). With ``threshold`` below 1 (VMoBA, arXiv 2506.23858) blocks are added in the order of their scores until their softmax reaches
it, at most ``top``.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import block_means, check_least, check_share, keep_keys


@intervention(source="MoBA, arXiv 2502.13189; VMoBA, arXiv 2506.23858", neutral={"top": 1 << 20, "threshold": 1.0})
def block_top_keys(
    heads: Iterable[Head], size: int = 16, top: int = 4, threshold: float = 1.0, positions: Positions = "all"
) -> Intervention:
    """The head attends to its own block of ``size`` keys and to the earlier blocks of highest mean score, ``top`` in all."""
    check_least("block_top_keys", 1, size=size, top=top)
    check_share("block_top_keys", threshold=threshold)

    def rows(x, at):
        import torch

        means, own = at.memory["means"], (at.positions // size)[..., None]
        order = torch.arange(means.shape[1], device=x.device)
        scores = at.inputs.q[:, at.query_slice] @ means.mT * at.inputs.scale
        ranked = scores.masked_fill(order > own, -torch.inf).masked_fill(order == own, torch.inf).sort(-1, descending=True)
        chosen = torch.arange(means.shape[1], device=x.device) < top
        if threshold < 1:
            shares = scores.masked_fill(order > own, -torch.inf).softmax(-1).gather(-1, ranked.indices)
            chosen = chosen & (shares.cumsum(-1) - shares < threshold)
        kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, ranked.indices, chosen.expand_as(scores))
        block = (at.keys.clamp(min=0) // size).expand(len(x), -1)[:, None].expand_as(x)
        return keep_keys(x, kept.expand(len(x), -1, -1).gather(-1, block), at.visible, at.sink_share)

    label = f"block top {top}x{size} {threshold:g}"
    return Intervention("pattern", tuple(heads), rows, label, positions, uses_inputs=True, prepare=block_means(size))
