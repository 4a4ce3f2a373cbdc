"""Resample ablation: like mean ablation it stays within the distribution of the head's outputs, and keeps their variance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import ActivationSource, Intervention, InterventionContext, Positions, intervention

if TYPE_CHECKING:
    import torch


@intervention(needs=("clean", "source_ids"))
def resample(
    heads: Iterable[Head], clean: ActivationSource, source_ids: torch.Tensor, positions: Positions = "all"
) -> Intervention:
    """The head's output is replaced by its output on another prompt of equal length.

    ``source_ids[i]`` is the resample source of example ``i``: z is taken from that example of ``clean``, position by position. Raises
    ValueError when an example is its own source.
    """
    own = (source_ids.cpu() == source_ids.cpu().new_tensor(range(len(source_ids)))).nonzero().ravel().tolist()
    if own:
        raise ValueError(f"resample: example {own[0]} is its own resample source; every example needs another one.")

    def z_of_source(x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        ids = source_ids.to(context.example_ids.device)[context.example_ids]
        return clean.z(context.head, ids, context.positions)

    return Intervention("z", tuple(heads), z_of_source, "resample", positions)
