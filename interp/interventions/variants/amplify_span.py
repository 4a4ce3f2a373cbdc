"""Scores of chosen tokens raised or lowered before the softmax (GIFT, PAINT and other span amplification; Attentive Eraser suppresses)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention

if TYPE_CHECKING:
    import torch


@intervention(needs=("targets",), source="Attentive Eraser, arXiv 2412.12974", neutral={"gain": 0.0})
def amplify_span(heads: Iterable[Head], targets: torch.Tensor, gain: float = 1.0, positions: Positions = "all") -> Intervention:
    """Scores of the targets grow by ``gain``: weights are multiplied by ``exp(gain)`` and normalised again; ``-inf`` hides them.

    ``targets`` [batch pos] is True at the targets of each example. A row that sees nothing else stays as it is.
    """

    def scores(s, at):
        chosen = at.where(targets)[:, None] & at.visible
        others = (at.visible & ~chosen).any(-1, keepdim=True)
        return s if gain == 0 else (s + max(gain, -1e30)).where(chosen & others, s)

    return Intervention("scores", tuple(heads), scores, f"amplify {gain:g}", positions, alike=True)
