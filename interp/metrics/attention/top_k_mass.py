"""Attention mass on the ``k`` largest weights of each row; 1 for rows that see at most ``k`` keys, k/n for n equal keys.

The upper bound on what any choice of ``k`` keys per query retains: the oracle for ``retained_mass`` at the same number of keys.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("query", paper="arXiv 2311.07125 (cumulative top-K attention)")
def top_k_mass(rows: AttentionRows, k: int = 5) -> Tensor:
    if k < 1:
        raise ValueError(f"top_k_mass:k={k} is too small: use at least 1.")
    return rows.pattern.topk(min(k, rows.pattern.shape[-1]), sorted=False).values.sum(-1)
