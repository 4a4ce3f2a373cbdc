"""How much a token looks at what followed it before: the mass on all keys right after an earlier occurrence of the same token.

Only rows that see such a key have a number. On random tokens repeated after n, these are exactly the rows of the second half, and a
perfect induction head scores 1; the mean of the whole (n-1)-th diagonal, also in use, reads cells that are no induction as well.
``threshold`` drops weights below it, cell by cell (HeadVis: 0.01), which keeps a diffuse head from scoring on tokens with many repeats.
"""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._repeats import mass_after_repeats


def _induction(rows: AttentionRows, threshold: float) -> Tensor:
    pattern = rows.pattern if threshold <= 0 else rows.pattern * (rows.pattern >= threshold).float()
    return mass_after_repeats(rows, 1, pattern)


induction_score = AttentionMetric(
    name="induction_score",
    axis="query",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_induction,
    paper="arXiv 2209.11895",
    parameters={"threshold": 0.0},
    undefined="the row sees no key after an earlier occurrence of its token",
    needs=("tokens",),
)
