"""How far back a head looks: the mean distance from query to key, weighted by attention, in tokens.

0 for a head that looks at itself, t/2 for row t of a uniform causal head. It grows with the position of the row and with the length of
the text, and a head parked on the first token has the largest distance there is: compare heads on one set of texts, and leave sinks out
with ``exclude`` (positions whose weight is dropped before the row is normalised again; rows that look nowhere else have no number).
"""

import torch
from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows


def _distance(rows: AttentionRows, exclude: tuple[int, ...]) -> Tensor:
    if not exclude:
        return rows.distance
    kept = ~torch.isin(rows.key_positions, torch.tensor(exclude, device=rows.pattern.device))
    mass = rows.weighted_mean(kept)
    far = (rows.pattern * (kept[:, None] * rows.lag.abs())[:, None]).sum(-1)
    return torch.where(mass > 1e-6, far / mass, torch.nan)


attention_distance = AttentionMetric(
    name="attention_distance",
    axis="query",
    unit="tokens",
    bounds=(0.0, None),
    function=_distance,
    paper="arXiv 2510.13554 §3 (average backward distance)",
    parameters={"exclude": ()},
    undefined="a row that looks at excluded positions alone has no distance",
)
