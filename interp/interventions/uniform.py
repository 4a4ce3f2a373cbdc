"""Uniform attention: removes where the head attends and keeps its values (the operation in the retrieval-head code of Wu et al. 2024)."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention


@intervention()
def uniform(heads: Iterable[Head], positions: Positions = "all") -> Intervention:
    """The head attends uniformly to all visible tokens."""

    def uniform_rows(x, context):
        visible = context.visible.to(x.dtype).expand_as(x)
        return visible / visible.sum(-1, keepdim=True).clamp(min=1)

    return Intervention("pattern", tuple(heads), uniform_rows, "uniform", positions, alike=True)
