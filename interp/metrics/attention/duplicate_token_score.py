"""Attention from a token to all of its earlier occurrences, 0 to 1.

Only rows with an earlier occurrence count, so few repeats mean few rows, not a low score.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention._repeats import mass_after_repeats


@attention_metric("query", paper="arXiv 2211.00593", undefined="the row sees no earlier key with its token", needs=("tokens",))
def duplicate_token_score(rows: AttentionRows) -> Tensor:
    return mass_after_repeats(rows, 0, rows.pattern)
