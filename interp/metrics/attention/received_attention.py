"""How much later tokens look at a token: the mean weight of its column, over the rows that can see it.

``min_rows`` leaves out columns that fewer rows see: the last columns of a causal text are means of one or two rows.
"""

from torch import Tensor

from interp.engine.observation import AttentionMetric
from interp.engine.rows import Rows


def _received(rows: Rows) -> tuple[Tensor, Tensor]:
    return rows.pattern.sum(2), rows.n_seeing[:, None].float()


received_attention = AttentionMetric(
    name="received_attention",
    axis="key",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_received,
    paper="arXiv 2410.10781 (importance of a position)",
    undefined="no row sees the token",
)
