"""Mean ablation. Unlike zero, it keeps what the head writes on every prompt, and removes what distinguishes one from another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention

if TYPE_CHECKING:
    import torch


@intervention(needs=("means",))
def mean(heads: Iterable[Head], means: torch.Tensor, positions: Positions = "all") -> Intervention:
    """The head's output is replaced by its mean over the prompts, at the ablated positions.

    z becomes ``means[layer, head]``; ``means`` is [n_layers n_heads d_head].
    """
    return Intervention("z", tuple(heads), lambda x, context: means[context.head].to(x.device), "mean", positions)
