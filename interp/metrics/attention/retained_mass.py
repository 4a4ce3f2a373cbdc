"""How much of a row survives a cache of the last ``window`` tokens and the first ``sinks``: the mass m on those keys.

Give the mass that is left out to the kept keys, as softmax over the kept scores does, and the row changes by 1 - m in total variation
and by -ln m in KL(new to old). Read it next to the share of keys that are kept, ``mask_density``, which is m of a head that
looks at all keys alike. At ``window`` >= length it is 1.
"""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._near import mass_in_window


def mask_density(length: int, window: int = 512, sinks: int = 4) -> float:
    """Density of the mask: the share of the query-key pairs of a causal text of ``length`` tokens that is kept, in 0..1."""
    kept = sum(min(row, window) + min(max(row - window, 0), sinks) for row in range(1, length + 1))
    return kept / (length * (length + 1) / 2)


def _retained(rows: AttentionRows, window: int, sinks: int) -> Tensor:
    if window < 1 or sinks < 0:
        raise ValueError(f"retained_mass keeps window={window} tokens and sinks={sinks}: take window >= 1 and sinks >= 0.")
    sink = rows.key_positions < sinks
    columns = sink.any(0).nonzero()[:, 0]
    beyond = (rows.lag[:, columns].abs() >= window) & sink[:, None, columns]
    return mass_in_window(rows, window) + (rows.pattern[..., columns] * beyond[:, None]).sum(-1)


retained_mass = AttentionMetric(
    name="retained_mass",
    axis="query",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_retained,
    paper="arXiv 2309.17453 (StreamingLLM)",
    parameters={"window": 512, "sinks": 4},
)
