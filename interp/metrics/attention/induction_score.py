"""Attention from a token to the keys right after its earlier occurrences, 0 to 1.

Only rows with such a key count; unknown tokens are neither repeats nor such keys. On random tokens repeated after n these
are the rows of the second copy, and a perfect induction head scores 1; the mean over the whole (n-1)-th diagonal, also in use,
includes rows without induction. ``threshold`` drops smaller weights (HeadVis: 0.01), so that a diffuse head does not score on
tokens with many repeats.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention._repeats import mass_after_repeats


@attention_metric(
    "query",
    paper="arXiv 2209.11895",
    undefined="the row sees no key after an earlier occurrence of its token",
    needs=("tokens",),
)
def induction_score(rows: AttentionRows, threshold: float = 0.0) -> Tensor:
    pattern = rows.pattern if threshold <= 0 else rows.pattern * (rows.pattern >= threshold).float()
    return mass_after_repeats(rows, 1, pattern)
