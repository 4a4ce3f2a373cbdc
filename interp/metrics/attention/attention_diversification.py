"""Similarity of a layer's attention rows, averaged over its heads; high when all tokens attend to the same few keys.

The name is the paper's, where it is a loss to minimise: 1 is the least diverse. One number per layer, given to each of its
heads; ``row_similarity`` is that of a single head, and describes the thresholding and which rows are compared.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention.row_similarity import cosine_sums, mean_cosine


@attention_metric(
    "text",
    "cosine",
    paper="Robustifying Token Attention (ICCV 2023)",
    undefined="a text of one token has no second half",
    all_heads=True,
    finish=mean_cosine,
)
def attention_diversification(rows: AttentionRows) -> tuple[Tensor, Tensor]:
    return cosine_sums(rows, rows.pattern.mean(1, keepdim=True))
