"""Top-k attention: the ``k`` largest weights of every row, which is the best mask of its size: the oracle of any budget of keys."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, keep_keys


@intervention(source="Memory-efficient Transformers via Top-k Attention, arXiv 2106.06899", neutral={"k": 1 << 30})
def top_keys(heads: Iterable[Head], k: int = 64, positions: Positions = "all") -> Intervention:
    """The head attends to the ``k`` tokens of largest weight in each row; ties with the last of them stay as well."""
    check_least("top_keys", 1, k=k)

    def rows(x, at):
        if k >= x.shape[-1]:
            return x
        return keep_keys(x, x >= x.topk(k, -1).values[..., -1:], at.visible, at.sink_share)

    return Intervention("pattern", tuple(heads), rows, f"top {k}", positions, alike=True)
