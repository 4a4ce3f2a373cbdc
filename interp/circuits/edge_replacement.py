"""What replaces the writer's output on a corrupted edge. The choice changes every number, so every result names it.

``counterfactual`` isolates what differs between the two prompts of a pair; ``resample`` and ``mean`` what differs among the
prompts; ``zero`` also removes what is the same on all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from interp.ablation.ablations import resample_source_ids
from interp.circuits.edge_method_and_ablation_names import EDGE_ABLATIONS
from interp.engine.sweep.outcome import Outcome
from interp.models.model import Model
from interp.registry import check_name
from interp.tasks.task import Task

if TYPE_CHECKING:
    from interp.engine.edges.residual_decomposition import ResidualDecomposition
    from interp.engine.sweep.readout import Readout
    from interp.engine.sweep.sweep import Progress


def decompositions_with_ablation(
    model: Model, task: Task, outcome: Outcome, ablation: str, seed: int = 0, progress: Progress | None = None
) -> Iterator[tuple[list[int], ResidualDecomposition, Readout]]:
    """``decompose_task`` with edges corrupted by ``ablation``; ``seed`` draws the other prompts of ``resample``."""
    import torch

    from interp.engine.edges.residual_decomposition import decompose_task, mean_outputs

    if ablation == "zero":
        return decompose_task(model, task, outcome, progress, dict.fromkeys(task.by_length(), torch.zeros(())))
    if ablation == "mean":
        return decompose_task(model, task, outcome, progress, mean_outputs(model, task))
    paired = resample_corrupted_prompts(task, seed) if ablation == "resample" else task
    return decompose_task(model, paired, outcome, progress)


def resample_corrupted_prompts(task: Task, seed: int) -> Task:
    """The task with every corrupted prompt replaced by another example's clean prompt of equal length, up to the tokens of the
    example's own answer that its prompt ends in."""
    examples = []
    for example, i in zip(task, resample_source_ids(task, seed), strict=True):
        n = len(example.prompt)
        examples.append(replace(example, corrupted=task.examples[i].clean[:n] + example.clean[n:]))
    return replace(task, examples=tuple(examples))


def check_edge_ablation(task: Task, ablation: str) -> None:
    """Raises LookupError for an unknown ablation; ValueError for ``counterfactual`` when no prompt differs from its corrupted
    twin, and for ``resample`` and ``mean`` when a prompt is the only one of its length."""
    check_name(ablation, EDGE_ABLATIONS, "ablation of edges")
    if ablation == "counterfactual":
        check_pairs(task, ", or use the ablation zero, mean or resample")
    for length, example_ids in task.by_length().items():
        answer_lengths = {task.examples[i].n_answer_tokens for i in example_ids}
        if ablation == "mean" and len(answer_lengths) > 1:
            raise ValueError(
                f"Ablation 'mean' averages prompts of equal length, and those of {length} tokens in task {task.name!r} have answers of "
                f"{' and '.join(map(str, sorted(answer_lengths)))} tokens: give answers of one length, or use counterfactual or zero."
            )
        if ablation in ("resample", "mean") and len(example_ids) == 1:
            raise ValueError(
                f"Ablation {ablation!r} needs another prompt of equal length, and example {example_ids[0]} of task {task.name!r} is the "
                f"only one of {length} tokens. Add prompts, or use counterfactual or zero."
            )


def check_pairs(task: Task, alternative: str = "") -> None:
    """Raises ValueError when no prompt differs from its corrupted twin; ``alternative`` completes the advice."""
    if not task.has_corrupted:
        raise ValueError(f"Task {task.name!r} has no corrupted prompts to patch from: add them{alternative}.")
