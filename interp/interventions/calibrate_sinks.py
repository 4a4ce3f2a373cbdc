"""Calibration of attention sinks: the sinks of a row keep a share of their weight, and its other keys receive the rest.

A row with weight ``m`` on its sinks keeps ``beta * m`` there, and its other keys share ``(1 - beta) * m`` in proportion to their
weights: the straight path from the row without its sinks, normalised again (``beta = 0``), to the unchanged row (``beta = 1``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import Intervention, InterventionContext, Positions, intervention

if TYPE_CHECKING:
    import torch


@intervention(needs=("sinks",))
def calibrate_sinks(
    heads: Iterable[Head], sinks: torch.Tensor, beta: float = 0.4, positions: Positions = "all"
) -> Intervention:
    """The attention sinks of the head keep ``beta`` of their weight, and its other keys receive the rest (arXiv 2406.15765).

    ``sinks`` [n_layers batch n_heads pos] is True where a position is a sink of a head in an example (``interp.metrics.sink_columns``
    finds them). The first token, unless it is a sink, is one of the other keys. Rows without a sink, or with nothing else, stay as they
    are, and so do those of tokens beyond the ``pos`` positions, such as generated ones: the method is for prompts. ``beta=1`` is the
    identity, bit for bit. Raises ValueError for a ``beta`` outside 0 to 1.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"calibrate: beta={beta:g} is not a share: sinks keep between 0 and 1 of their weight.")

    def without_sinks(x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        length = sinks.shape[-1]
        sink = context.where(sinks[context.head.layer, :, context.head.head])[:, None]
        others = x.masked_fill(sink, 0)
        rest = others.sum(-1, keepdim=True)
        shared = (context.positions < length)[..., None] & (rest > 0) & (x.masked_fill(~sink, 0) > 0).any(-1, keepdim=True)
        total = 1 if context.sink_share is None else 1 - context.sink_share
        return (others / rest * total).where(shared, x)

    return Intervention("pattern", tuple(heads), without_sinks, f"calibrate {beta:g}", positions, strength=1 - beta)
