"""How much of a row its ``k`` largest weights hold: 1 where a row sees no more than ``k`` keys, k/n for n keys alike.

The most that any choice of ``k`` keys for each query can retain: the oracle for ``retained_mass`` at the same number of keys.
"""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows


def _top(rows: AttentionRows, k: int) -> Tensor:
    if k < 1:
        raise ValueError(f"top_k_mass:k={k} keeps no weight: take 1 or more.")
    return rows.pattern.topk(min(k, rows.pattern.shape[-1]), sorted=False).values.sum(-1)


top_k_mass = AttentionMetric(
    name="top_k_mass",
    axis="query",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_top,
    paper="arXiv 2311.07125 (cumulative top-K attention)",
    parameters={"k": 5},
)
