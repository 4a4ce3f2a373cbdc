"""Heavy hitters and recent tokens (H2O, arXiv 2306.14048): a cache of fixed size that drops the key with the least weight so far.

The causal, greedy form: a row attends to the kept keys, its weights are added to their sums, and if more keys than the budget are kept, the
one with the smallest sum outside the most recent drops out for good. The authors' evaluation code ranks by the columns of the whole
text instead, which uses later queries. One head of a key/value group decides for itself.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, keep_keys


@intervention(source="H2O, arXiv 2306.14048", neutral={"heavy": 1 << 30})
def heavy_hitters(heads: Iterable[Head], heavy: int = 16, recent: int = 16, positions: Positions = "all") -> Intervention:
    """The head keeps the ``recent`` last tokens and the ``heavy`` earlier ones that received most weight; a dropped one never returns."""
    check_least("heavy_hitters", 1, recent=recent)
    check_least("heavy_hitters", 0, heavy=heavy)

    def rows(x, at):
        import torch
        from torch.nn.functional import pad

        n_keys, out, budget = at.inputs.k.shape[1], torch.empty_like(x), heavy + recent
        first = at.query_slice.start + n_keys - at.inputs.q.shape[1]  # column of the first query
        start = at.key_slice.start or 0
        sums, alive = at.memory.get("sums", x.new_zeros(len(x), 0)), at.memory.get("alive", at.inputs.token_mask[:, :0])
        sums, alive = (pad(t, (0, n_keys - t.shape[1])) for t in (sums, alive))
        index = torch.arange(len(x), device=x.device)
        for i in range(x.shape[1]):
            here, end = first + i, min(first + i + 1, start + x.shape[2])
            alive[:, here] = at.inputs.token_mask[:, here]
            kept = alive[:, start:end]
            sink = None if at.sink_share is None else at.sink_share[:, i]
            row = keep_keys(x[:, i, : end - start], kept, at.visible[:, i, : end - start], sink)
            out[:, i] = pad(row, (0, x.shape[2] - row.shape[1]))
            sums[:, start:end] += row
            old = sums[:, : max(0, here + 1 - recent)].masked_fill(~alive[:, : max(0, here + 1 - recent)], torch.inf)
            if old.shape[1]:
                full = alive[:, : here + 1].sum(-1) > budget
                alive[index, old.argmin(-1)] &= ~full
        at.memory.update(sums=sums, alive=alive)
        return out

    return Intervention(
        "pattern", tuple(heads), rows, f"heavy hitters {heavy}+{recent}", positions, uses_inputs=True, in_order=True
    )
