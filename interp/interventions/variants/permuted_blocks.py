"""Block-sparse attention after a permutation of the tokens (PAROAttention, arXiv 2506.16054).

Tokens are read column by column of a grid of ``width`` tokens a row, for the width of ``widths`` that puts most of a head's attention into
few blocks; the densest blocks that hold ``mass`` of it stay. The paper permutes the axes of a video; a text has one axis, which is
folded. The whole text is read first, so that rows depend on later tokens.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import HeadInputs, Intervention, Memory, Positions, intervention
from interp.interventions.variants._rows import check_least, check_share, keep_keys


@intervention(source="PAROAttention, arXiv 2506.16054", neutral={"mass": 1.0})
def permuted_blocks(
    heads: Iterable[Head], size: int = 16, widths: tuple = (1, 2, 4, 8), mass: float = 0.9, positions: Positions = "all"
) -> Intervention:
    """The head keeps its densest blocks of ``size`` x ``size`` tokens in the best order of the tokens, up to a share ``mass``."""
    check_least("permuted_blocks", 1, size=size, widths=min(widths, default=0))
    check_share("permuted_blocks", mass=mass)

    def block_of(place, n, width):
        """The block of each token in the order of columns."""
        rows = (n + width - 1) // width
        return (place % width * rows + place // width).clamp(min=0) // size

    def prepare(inputs: HeadInputs, memory: Memory) -> None:
        import torch

        batch, n = len(inputs.k), int(inputs.key_positions.max()) + 1
        found = []
        for width in widths:
            side = (width * ((n + width - 1) // width)) // size + 1
            held = inputs.k.new_zeros(batch, side * side)
            q, k = (block_of(p, n, width).expand(batch, -1) for p in (inputs.query_positions, inputs.key_positions))
            for queries, keys, weights in inputs.rows():
                cell = q[:, queries, None] * side + k[:, None, keys]
                held.scatter_add_(1, cell.flatten(1), weights.flatten(1))
            ordered, order = held.sort(-1, descending=True)
            before = ordered.cumsum(-1) - ordered
            needed = before < mass * held.sum(-1, keepdim=True)
            kept = torch.zeros_like(needed).scatter(1, order, needed)
            found.append((needed.sum(-1), kept.view(batch, side, side), q, k))
        best = torch.stack([count for count, *_ in found]).argmin(0)
        memory["choices"] = best, [parts for _, *parts in found]

    def rows(x, at):
        import torch

        best, choices = at.memory["choices"]
        if mass >= 1:
            return x
        chosen = [choices[i] for i in best.tolist()]
        kept = [blocks[row][q[row, at.query_slice]][:, k[row, at.key_slice]] for row, (blocks, q, k) in enumerate(chosen)]
        return keep_keys(x, torch.stack(kept), at.visible, at.sink_share)

    label = f"permuted blocks {size} {mass:g}"
    return Intervention("pattern", tuple(heads), rows, label, positions, uses_inputs=True, prepare=prepare, reads_to_end=True)
