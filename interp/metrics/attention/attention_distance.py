"""Mean distance from query to key, weighted by attention, in tokens.

0 for a head that attends to itself, t/2 for row t of a uniform causal head. It grows with position and text length, and a
sink on the first token maximises it: compare heads on one set of texts, and drop sinks with ``exclude`` (positions removed
before the row is renormalised; rows with no weight elsewhere are undefined).
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric(
    "query",
    "tokens",
    (0.0, None),
    paper="arXiv 2510.13554 §3 (average backward distance)",
    undefined="all weight of the row is on excluded positions",
)
def attention_distance(rows: AttentionRows, exclude: tuple[int, ...] = ()) -> Tensor:
    if not exclude:
        return rows.distance
    included = ~torch.isin(rows.key_positions, torch.tensor(exclude, device=rows.pattern.device))
    mass = rows.weighted_mean(included)
    far = (rows.pattern * (included[:, None] * rows.lag.abs())[:, None]).sum(-1)
    return torch.where(mass > 1e-6, far / mass, torch.nan)
