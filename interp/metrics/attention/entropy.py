"""Shannon entropy of each attention row, in nats; 0 for a single key, ln(t+1) for row t of a uniform causal head."""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("query", "nats", (0.0, None), paper="Shannon 1948; for attention arXiv 1906.04284")
def entropy(rows: AttentionRows) -> Tensor:
    return rows.entropy
