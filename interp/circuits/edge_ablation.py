"""What a corrupted edge shows its reader in place of what its writer wrote; which one it is changes every number, so each result names it.

``counterfactual`` asks what carries the difference between two prompts; ``resample`` and ``mean`` what carries anything that differs
among the prompts; ``zero`` also takes away what is the same on all of them, and leaves what the model knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from interp.ablation.ablate_heads import resample_source_ids
from interp.circuits.methods import EDGE_ABLATIONS
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.engine.edges.residual_decomposition import ResidualDecomposition
    from interp.engine.sweep.outcome import Outcome
    from interp.engine.sweep.readout import Readout
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.tasks.task import Task


def decompositions_with_ablation(
    model: Model, task: Task, outcome: Outcome, ablation: str, seed: int = 0, progress: Progress | None = None
) -> Iterator[tuple[list[int], ResidualDecomposition, Readout]]:
    """``decompose_task`` of a task whose edges are corrupted by ``ablation``; ``seed`` draws the other prompts of ``resample``.

    Raises what ``check_edge_ablation`` raises.
    """
    import torch

    from interp.engine.edges.residual_decomposition import decompose_task, mean_outputs

    check_edge_ablation(task, ablation)
    if ablation == "zero":
        return decompose_task(model, task, outcome, progress, dict.fromkeys(task.by_length(), torch.zeros(())))
    if ablation == "mean":
        return decompose_task(model, task, outcome, progress, mean_outputs(model, task))
    return decompose_task(model, task if ablation == "counterfactual" else resampled(task, seed), outcome, progress)


def resampled(task: Task, seed: int) -> Task:
    """The same task with another clean prompt of equal length in place of each corrupted one, never the prompt itself."""
    source_ids = resample_source_ids(task, seed)
    examples = (replace(e, corrupted=task.examples[donor].clean) for e, donor in zip(task, source_ids, strict=True))
    return replace(task, examples=tuple(examples))


def check_edge_ablation(task: Task, ablation: str) -> None:
    """Raises LookupError for an unknown ablation; ValueError for ``counterfactual`` where no prompt differs from its corrupted twin, and
    for ``resample`` and ``mean`` where a prompt is the only one of its length."""
    check_name(ablation, EDGE_ABLATIONS, "ablation of edges")
    if ablation == "counterfactual":
        check_pairs(task, ", or take the ablation zero, mean or resample")
    for length, rows in task.by_length().items():
        if ablation in ("resample", "mean") and len(rows) == 1:
            raise ValueError(
                f"Edges cannot be corrupted by {ablation!r}: example {rows[0]} of task {task.name!r} is the only one of {length} tokens, "
                f"and others of its length must stand for it. Add prompts, or take counterfactual or zero."
            )


def check_pairs(task: Task, otherwise: str = "") -> None:
    """Raises ValueError where no prompt differs from its corrupted twin; ``otherwise`` is what can be done beside adding some."""
    if not task.has_corrupted:
        raise ValueError(
            f"Task {task.name!r} has no corrupted prompts, from which parts are taken in place of the clean ones: add them{otherwise}."
        )
