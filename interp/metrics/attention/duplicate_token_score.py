"""Attention from a token to all of its earlier occurrences, 0 to 1.

Only rows with an earlier occurrence count, so few repeats mean few rows, not a low score.
"""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._repeats import mass_after_repeats


def _duplicate(rows: AttentionRows) -> Tensor:
    return mass_after_repeats(rows, 0, rows.pattern)


duplicate_token_score = AttentionMetric(
    name="duplicate_token_score",
    axis="query",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_duplicate,
    paper="arXiv 2211.00593",
    undefined="the row sees no earlier key with its token",
    needs=("tokens",),
)
