"""Uniform attention: removes where the head attends and keeps its values (the operation in the retrieval-head code of Wu et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import Intervention, InterventionContext, Positions, intervention

if TYPE_CHECKING:
    import torch


@intervention()
def uniform(heads: Iterable[Head], positions: Positions = "all") -> Intervention:
    """The head attends uniformly to all visible tokens."""

    def uniform_rows(x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        assert context.visible is not None
        visible = context.visible.to(x.dtype).expand_as(x)
        return visible / visible.sum(-1, keepdim=True).clamp(min=1)

    return Intervention("pattern", tuple(heads), uniform_rows, "uniform", positions)
