"""Isolation of a span: its tokens see no others, or are seen by no others (Isolation Attention; EE-MLLM's composite attention)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import keep_keys

if TYPE_CHECKING:
    import torch

WAYS = ("both", "from_rest", "to_rest", "inside")


@intervention(needs=("targets",), source="EE-MLLM, arXiv 2408.11795")
def isolate_span(heads: Iterable[Head], targets: torch.Tensor, way: str = "both", positions: Positions = "all") -> Intervention:
    """Span tokens do not read the rest (``from_rest``), are not read by it (``to_rest``), both, or do not read each other (``inside``).

    ``targets`` [batch pos] is True at the tokens of the span. Without a span nothing changes. A token always sees itself.
    """
    if way not in WAYS:
        raise ValueError(f"isolate_span: way={way!r} is not one of {', '.join(WAYS)}.")

    def rows(x, at):
        key = at.where(targets)[:, None]
        query = at._replace(keys=at.positions).where(targets)[..., None]
        kept = {
            "both": query == key,
            "from_rest": ~query | key,
            "to_rest": query | ~key,
            "inside": ~(query & key),
        }[way] | (at.positions[..., None] == at.keys[:, None])
        return keep_keys(x, kept, at.visible, at.sink_share)

    return Intervention("pattern", tuple(heads), rows, f"isolate {way}", positions, alike=True)
