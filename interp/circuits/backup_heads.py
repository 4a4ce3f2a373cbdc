"""Backup heads: heads that matter only once others are ablated.

A backup head has no effect while the head it backs up does its work, so that no sweep over single heads finds it. Ablate the
heads found first and sweep again: ``effect = metric(both ablated) - metric(those ablated)``; negative = the head now helps.
"""

from collections.abc import Sequence

import numpy as np

from interp.ablation.ablations import build_variants, check_ablation
from interp.circuits.clean_and_corrupted_runs import measurement_record
from interp.engine.sweep.sweep import Progress, sweep
from interp.heads import Head, HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model
from interp.tasks.task import Task


def backup_heads(
    model: Model,
    task: Task,
    ablated_heads: Sequence[Head],
    *,
    ablation: str = "mean",
    positions: str = "all",
    metric: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadScores:
    """Mean effect of every other head with ``ablated_heads`` ablated alike, in the metric's unit; these are NaN.

    Raises LookupError for unknown names and heads, ValueError for an empty list of heads and for what ``sweep`` refuses.
    """
    check_ablation(ablation, task)
    ablated = tuple(dict.fromkeys(model.facts.check_head(Head(*head)) for head in ablated_heads))
    if not ablated:
        raise ValueError("ablated_heads is empty: give the heads that a first sweep found.")
    outcome, others = OUTCOMES.get(metric or task.metric), [head for head in model.facts.heads() if head not in ablated]
    arguments = {"ablation": ablation, "positions": positions, "ablated_heads": [*map(str, ablated)]}
    record = measurement_record(model, task, ablation, outcome.name, seed, **arguments)
    variants = build_variants(model, task, ablation, positions, [ablated, *((*ablated, head) for head in others)], seed)
    values = sweep(model, task, variants, outcome, record=record, progress=progress).values.mean(1)
    effects = np.full((model.facts.n_layers, model.facts.n_heads), np.nan)
    for head, value in zip(others, values[1:], strict=True):
        effects[head] = value - values[0]
    name = f"effect with {' '.join(map(str, ablated))} ablated"
    return HeadScores(name, effects, outcome.unit, (None, None), record, "ablated in every run")
