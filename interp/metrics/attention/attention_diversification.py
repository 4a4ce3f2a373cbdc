"""How alike the rows of a layer are, its heads averaged first: 1 where all tokens look at the same few, a loss in the paper's training.

One number for a layer, given to each of its heads; ``row_similarity`` is that of a head by itself, and says what is taken as 0 and
which rows are compared.
"""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention.row_similarity import alike, mean_cosine


def _of_layer(rows: AttentionRows) -> tuple[Tensor, Tensor]:
    return alike(rows, rows.pattern.mean(1, keepdim=True))


attention_diversification = AttentionMetric(
    name="attention_diversification",
    axis="text",
    unit="cosine",
    bounds=(0.0, 1.0),
    function=_of_layer,
    paper="Robustifying Token Attention (ICCV 2023)",
    undefined="a text of one token has no second half",
    all_heads=True,
    finish=mean_cosine,
)
