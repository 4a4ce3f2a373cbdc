"""Attention mass on the last ``window`` and first ``n_sink`` tokens, what a StreamingLLM cache retains, 0 to 1.

Renormalising over the retained keys changes a row with mass m by 1 - m in total variation and by -ln m in KL(new to old).
Compare with ``mask_density``, which is m of a uniform head. At ``window`` >= text length it is 1.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention._near import mass_in_window


def mask_density(length: int, window: int = 512, n_sink: int = 4) -> float:
    """Share of the query-key pairs of a causal text of ``length`` tokens that the mask keeps, 0 to 1."""
    kept = sum(min(row, window) + min(max(row - window, 0), n_sink) for row in range(1, length + 1))
    return kept / (length * (length + 1) / 2)


@attention_metric("query", paper="arXiv 2309.17453 (StreamingLLM)")
def retained_mass(rows: AttentionRows, window: int = 512, n_sink: int = 4) -> Tensor:
    if window < 1 or n_sink < 0:
        raise ValueError(f"retained_mass:window={window}:n_sink={n_sink} is invalid: use window >= 1 and n_sink >= 0.")
    sink = rows.key_positions < n_sink
    columns = sink.any(0).nonzero()[:, 0]
    beyond = (rows.lag[:, columns].abs() >= window) & sink[:, None, columns]
    return mass_in_window(rows, window) + (rows.pattern[..., columns] * beyond[:, None]).sum(-1)
