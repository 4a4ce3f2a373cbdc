"""Reversed attention (Visual Dependency Transformers, arXiv 2304.03282): tokens send their values, where softmax lets them gather.

Scores are normalised over the queries that see a key, not over the keys of a query: columns of the pattern sum to 1 and rows do not. In
a causal model a column reaches over later tokens, so that rows depend on them. The paper's message controller and pruning are left out.
There is no neutral setting.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import HeadInputs, Intervention, Memory, Positions, intervention


@intervention(source="Visual Dependency Transformers, arXiv 2304.03282")
def reversed_attention(heads: Iterable[Head], positions: Positions = "all") -> Intervention:
    """Each key divides a weight of 1 among the queries that see it: softmax over queries instead of keys."""

    def prepare(inputs: HeadInputs, memory: Memory) -> None:
        total = inputs.k.new_full(inputs.k.shape[:2], float("-inf"))
        tokens = inputs.token_mask.expand(len(inputs.k), -1)[:, -inputs.q.shape[1] :]
        for queries, keys, _ in inputs.rows():
            scores = inputs.scores(queries, keys).masked_fill(~tokens[:, queries, None], float("-inf"))
            total[:, keys] = total[:, keys].logaddexp(scores.logsumexp(1))
        memory["total"] = total

    def rows(x, at):
        total = at.memory["total"][:, None, at.key_slice]
        return (at.inputs.scores(at.query_slice, at.key_slice) - total).exp().where(at.visible, 0)

    return Intervention(
        "pattern", tuple(heads), rows, "reversed", positions, uses_inputs=True, prepare=prepare, reads_to_end=True
    )
