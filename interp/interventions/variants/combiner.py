"""Combiner (arXiv 2107.05768): exact attention inside a block, and one score for each earlier block, shared evenly by its tokens.

The score of an earlier block is that of its mean key, counted once for each of its tokens, so that the pattern is that of the dense head
where all keys of a block are equal. Block scores of max-pooled keys and the paper's other factorisations are left out.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import block_means, check_least


@intervention(source="Combiner, arXiv 2107.05768", neutral={"size": 1})
def combiner(heads: Iterable[Head], size: int = 16, positions: Positions = "all") -> Intervention:
    """Keys of earlier blocks of ``size`` tokens score as their block's mean key; those of the query's own block as they do."""
    check_least("combiner", 1, size=size)

    def scores(s, at):
        if size == 1:
            return s
        block = (at.keys.clamp(min=0) // size).expand(len(s), -1)[:, None].expand_as(s)
        pooled = (at.inputs.q[:, at.query_slice] @ at.memory["means"].mT * at.inputs.scale).gather(-1, block)
        return pooled.where(block < (at.positions // size)[..., None], s)

    return Intervention(
        "scores", tuple(heads), scores, f"combiner {size}", positions, uses_inputs=True, prepare=block_means(size)
    )
