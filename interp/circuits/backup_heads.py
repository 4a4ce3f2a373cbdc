"""The heads that matter once others are gone: a second sweep that finds what stands in for them.

A backup head does nothing as long as the head that it backs up does its work, so that no sweep over single heads finds it. Remove the
heads found first, and sweep again: ``effect = metric(without them and the head) - metric(without them)``; negative = the head helps then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.ablation.ablate_heads import ABLATIONS, build_variants
from interp.heads import Head, HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.tasks.task import Task


def backup_heads(
    model: Model,
    task: Task,
    without: Sequence[Head],
    *,
    method: str = "mean",
    positions: str = "all",
    metric: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadScores:
    """The mean effect of every other head when those of ``without`` are removed in the same way; these have no number.

    ``method`` is an ablation (``zero mean resample patch uniform``). Raises LookupError for unknown names and heads, ValueError where no
    head is removed and for what a sweep refuses.
    """
    from interp.engine.sweep.sweep import sweep
    from interp.models.model import record_of

    check_name(method, ABLATIONS, "ablation")
    gone = tuple(dict.fromkeys(model.facts.check_head(Head(*head)) for head in without))
    if not gone:
        raise ValueError("No head is removed: name those that a first sweep found.")
    outcome, others = OUTCOMES.get(metric or task.metric), [head for head in model.facts.heads() if head not in gone]
    arguments = {**task.provenance, "method": method, "positions": positions, "without": [*map(str, gone)]}
    record = record_of(model, task=task.name, arguments=arguments, interventions=(method,), metric=outcome.name, seed=seed)
    variants = build_variants(model, task, method, positions, [gone, *((*gone, head) for head in others)], seed)
    values = sweep(model, task, variants, outcome, record=record, progress=progress).values.mean(1)
    effects = np.full((model.facts.n_layers, model.facts.n_heads), np.nan)
    for head, value in zip(others, values[1:], strict=True):
        effects[head] = value - values[0]
    name = f"effect without {' '.join(map(str, gone))}"
    return HeadScores(name, effects, outcome.unit, (None, None), record, "removed in every run")
