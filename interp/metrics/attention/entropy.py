"""Shannon entropy of each attention row, in nats; 0 for a single key, ln(t+1) for row t of a uniform causal head."""

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows


def _entropy(rows: AttentionRows):
    return rows.entropy


entropy = AttentionMetric(
    name="entropy",
    axis="query",
    unit="nats",
    bounds=(0.0, None),
    function=_entropy,
    paper="Shannon 1948; for attention arXiv 1906.04284",
)
