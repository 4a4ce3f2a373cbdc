"""Attention set by hand, to test whether attending elsewhere would repair an answer (arXiv 2310.08744)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import Intervention, InterventionContext, Positions, intervention

if TYPE_CHECKING:
    import torch


@intervention(needs=("targets",))
def attend_to(heads: Iterable[Head], targets: torch.Tensor, positions: Positions = "end") -> Intervention:
    """The head attends uniformly to its targets (by default the first token) and to nothing else.

    ``targets`` [batch pos] is True at the targets of each example; shorter examples are padded with False. A row becomes ``1 / n`` at the
    ``n`` targets that it may attend to. Values, keys and all other rows stay; a row without a visible target stays as it is.
    """

    def rows(x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        assert context.visible is not None
        chosen = (context.where(targets)[:, None] & context.visible).to(x.dtype).expand_as(x)
        total = chosen.sum(-1, keepdim=True)
        return (chosen / total.clamp(min=1)).where(total > 0, x)

    return Intervention("pattern", tuple(heads), rows, "attend to", positions, alike=True)
