"""Attention set by hand: the head looks at given positions alike, and at nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import Intervention, InterventionContext

if TYPE_CHECKING:
    import torch


def attend_to(heads: Iterable[Head], targets: torch.Tensor, positions: str | tuple[int, ...] = "end") -> Intervention:
    """The head looks at its ``targets`` alike: its row becomes ``1 / n`` at the ``n`` of them that it may see and 0 elsewhere.

    ``targets`` [batch pos] is True where an example has one; shorter examples are filled up with False. Values, keys and all other rows
    stay; a row that sees no target stays as it is. Source: the repair of arXiv 2310.08744.
    """

    def rows(x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        assert context.visible is not None
        chosen = (context.where(targets)[:, None] & context.visible).to(x.dtype).expand_as(x)
        total = chosen.sum(-1, keepdim=True)
        return (chosen / total.clamp(min=1)).where(total > 0, x)

    return Intervention("pattern", tuple(heads), rows, "attend to", positions)
