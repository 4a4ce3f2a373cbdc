"""Stochastic masking of the most attended tokens (ACMIL, arXiv 2311.07125): their weight goes to the others."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, check_share, keep_keys, uniform


@intervention(source="ACMIL, arXiv 2311.07125", neutral={"probability": 0.0})
def mask_top_keys(
    heads: Iterable[Head], k: int = 10, probability: float = 0.6, seed: int = 0, positions: Positions = "all"
) -> Intervention:
    """Each of the ``k`` tokens of largest weight in a row is hidden with this ``probability``, and the others receive its weight.

    Which tokens are hidden is drawn for every token of the text and ``seed``. A row with nothing else stays.
    """
    check_least("mask_top_keys", 1, k=k)
    check_least("mask_top_keys", 0, seed=seed)
    check_share("mask_top_keys", probability=probability)

    def rows(x, at):
        top = x >= x.topk(min(k, x.shape[-1]), -1).values[..., -1:]
        hidden = top & (uniform(at.keys, seed, at.head.layer)[:, None] < probability)
        left = (x * ~hidden).sum(-1, keepdim=True) > 0
        return keep_keys(x, ~(hidden & left), at.visible, at.sink_share)

    return Intervention("pattern", tuple(heads), rows, f"mask top {k} p {probability:g} seed {seed}", positions, alike=True)
