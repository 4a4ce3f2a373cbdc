"""Whether detected heads matter for a task: the top k ablated together, compared with equally many control heads.

Positions ``all`` ablate the heads throughout the prompt, ``end`` only where the answer is predicted, which leaves their effect on the
context intact (the published code of arXiv 2404.15574 masks during decoding, with ablation ``uniform``). After Wu et al. 2024, whose random
heads are drawn anew for every cell and may be retrieval heads; the other controls are this project's.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from interp.ablation.ablations import StandIns, build_variants, check_ablation
from interp.confirmation.confirmation_result import Confirmation, set_tables
from interp.confirmation.head_sets import CLEAN, MIN_DRAWS, NO_PAIRS, choose_ks, control_pool, draw_sets
from interp.detectors.support.detection import Detection
from interp.detectors.support.null_threshold import prompt_digests
from interp.engine.sweep.outcome import Outcome, check_outcome
from interp.engine.sweep.sweep import Progress, UnitLedger, clean_outcome, sweep
from interp.engine.sweep.work_units import WorkPlan, plan_sweep
from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.tasks.position_names import resolve_positions
from interp.tasks.task import Task


def confirm(
    detection: Detection,
    model: Model,
    task: Task,
    *,
    ks: Sequence[int] | None = None,
    n_draws: int = MIN_DRAWS,
    ablation: str = "mean",
    positions: Sequence[str] = ("all", "end"),
    metric: str = "accuracy",
    specificity: Sequence[Task] = (),
    seed: int = 0,
    memory: int | None = None,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> Confirmation:
    """The outcome with the top k heads of a detection ablated together, for every k, and with random, layer-matched and bottom heads.

    ``ks`` defaults to those of 1, 2, 5, 10, 20, 50, 100 for which twice as many controls remain. ``ablation`` is ``zero``, ``mean``,
    ``resample`` or ``uniform``; ``specificity`` are tasks that should not need these heads, measured with the same sets. Raises ValueError
    for prompts used in detection, another model, too few controls, and where no answer is right; LookupError for unknown names.
    """
    tasks, outcome = (task, *specificity), OUTCOMES.get(metric)
    ks = check_confirmation(
        detection, model, tasks, ks=ks, n_draws=n_draws, ablation=ablation, positions=positions, metric=metric
    )
    sets, unmatched = draw_sets(detection, ks, n_draws, seed)
    unique = {frozenset(s.heads): s.heads for s in sets}
    index = {heads: i for i, heads in enumerate(unique)}
    arguments = {**task.provenance, "role": detection.role, "ks": ks, "n_draws": n_draws, "ablation": ablation}
    arguments |= {"positions": list(positions)} | ({"specificity": [t.name for t in specificity]} if specificity else {})
    record = record_of(model, task=task.name, arguments=arguments, interventions=(ablation,), metric=outcome.name, seed=seed)
    _check_answers(model, tasks, outcome)
    plans = plan_confirmation(model, tasks, positions, list(unique.values()), ablation, outcome, memory)
    n_units, parts, records = sum(plan.n_units for plan in plans), [], {}
    for i, (measured, where) in enumerate(product(tasks, positions)):
        variants = build_variants(model, measured, ablation, where, list(unique.values()), seed)
        step = _part_of_progress(progress, sum(plan.n_units for plan in plans[:i]), n_units)
        result = sweep(model, measured, variants, outcome, record=record, memory=memory, ledger=ledger, progress=step)
        records.setdefault(measured.name, replace(result.record, task=measured.name))
        values = np.stack([result.baseline, *(result.values[index[frozenset(s.heads)]] for s in sets)])
        parts.append(set_tables([CLEAN, *sets], values, measured, where, seed))
    tables = {name: _concat([part[name] for part in parts]) for name in parts[0]}
    top = detection.top(max(ks))
    details = {
        "detected": [str(head) for head in top],
        "above_threshold": [str(head) for head in detection.detected],
        "n_controls": len(control_pool(detection, top)),
        "unmatched": {str(k): n for k, n in unmatched.items() if n},
        "unit": outcome.unit,
        "control_tasks": [records[other.name].performance_sentence for other in specificity],
    }
    return Confirmation(detection.role, tables.pop("sets"), records[task.name], details, tables)


def check_confirmation(
    detection: Detection,
    model: Model,
    tasks: Sequence[Task],
    *,
    ks: Sequence[int] | None,
    n_draws: int,
    ablation: str,
    positions: Sequence[str],
    metric: str,
) -> list[int]:
    """The numbers of heads that ``confirm`` would ablate, ascending; raises for every wrong argument, and runs nothing."""
    check_ablation(ablation, without=NO_PAIRS)
    if n_draws < MIN_DRAWS:
        raise ValueError(f"n_draws={n_draws} is too few: random heads vary, use at least {MIN_DRAWS}.")
    record, facts = detection.record, model.facts
    if record.weights_digest != facts.weights_digest:
        raise ValueError(
            f"The heads were detected in {record.model} (weights {record.weights_digest}), and this is {facts.name} (weights "
            f"{facts.weights_digest}, {facts.dtype}): confirm them in the model in which they were detected."
        )
    for task in tasks:
        check_outcome(task, OUTCOMES.get(metric))
        n_shared = len(detection.prompts & prompt_digests(example.clean for example in task))
        if n_shared:
            raise ValueError(
                f"{n_shared} of the {len(task)} prompts of task {task.name!r} were used for detection: make the task with another seed."
            )
        for where, example in product(positions, task):
            resolve_positions(where, len(example.clean), example.marks)
    return choose_ks(detection, ks)


def plan_confirmation(
    model: Model,
    tasks: Sequence[Task],
    positions: Sequence[str],
    sets: Sequence[tuple[Head, ...]],
    ablation: str,
    outcome: Outcome,
    memory: int | None,
) -> list[WorkPlan]:
    """The plan of the sweep of each task at each of the positions, in order, over sets of heads; runs nothing."""
    passes = [
        (task, build_variants(model, task, ablation, where, sets, 0, StandIns)) for task, where in product(tasks, positions)
    ]
    return [plan_sweep(model, task, variants, outcome, memory, identity="plan") for task, variants in passes]


def _check_answers(model: Model, tasks: Sequence[Task], outcome: Outcome) -> None:
    """Raises ValueError for accuracy on a task of which the model answers nothing."""
    for task in tasks:
        if outcome.name == "accuracy" and not clean_outcome(model, task, outcome).any():
            raise ValueError(
                f"{model.facts.name} answers none of the {len(task)} prompts of task {task.name!r} correctly, so ablation cannot "
                f"lower its accuracy: use an easier task or another metric, such as logit_diff."
            )


def _part_of_progress(progress: Progress | None, before: int, n_units: int) -> Progress | None:
    """Progress of one of several sweeps as progress of all of them."""
    return None if progress is None else lambda done, _: progress(before + done, n_units)


def _concat(tables: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    return table.astype(dict.fromkeys(table.select_dtypes("int64").columns, "int32"))
