"""Whether attention rows set by hand repair a task (arXiv 2310.08744): heads attend to wrong answers and suppress them.

The rows of chosen heads at END are set to the positions of the wrong answers, so that heads which suppress what they attend to
act on those. The intervention is told where the answers are, hence ``oracle``: it shows that a circuit exists and is not a way
to answer better. The paper repairs an accuracy of 49.6% to 93.7%.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool

from interp._short_repr import short_repr
from interp.circuits.clean_and_corrupted_runs import measurement_record
from interp.circuits.table_and_plot_mixins import TableResult
from interp.engine.sweep.sweep import sweep
from interp.engine.sweep.variant import Variant
from interp.heads import Head
from interp.interventions import attend_to
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model
from interp.records import RunRecord
from interp.statistics import mean_interval, resample_prompts
from interp.tasks.task import Task


@short_repr
@dataclass(frozen=True, eq=False)
class Repair(TableResult):
    """``table``: one row per condition and draw: ``condition draw heads oracle n``, ``accuracy`` over the whole vocabulary with
    its 95% interval ``ci_low ci_high`` (over ``n_clusters``, if any), the task's own metric as ``outcome``, and the shares of
    prompts ``repaired`` and ``broken`` (from wrong to right and the reverse, compared with the damaged run if there is one).

    Conditions: ``clean``; ``damaged``; ``repair`` and ``right`` (rows set to the wrong answers, and to the right one; both are
    told the answer); ``random_positions`` (as many others); ``random_heads`` (others of the same layers, rows as in ``repair``).
    """

    table: pd.DataFrame
    unit: str
    record: RunRecord


def repair(
    model: Model,
    task: Task,
    heads: Sequence[Head],
    wrong_marks: Sequence[str],
    right_marks: Sequence[str],
    *,
    base_interventions: Variant = (),
    n_draws: int = 20,
    seed: int = 0,
) -> Repair:
    """Accuracy with ``heads`` attending from END to ``wrong_marks`` with equal weights, beside its controls.

    ``base_interventions`` apply in all conditions but ``clean``. Raises LookupError for an unknown mark or head, ValueError
    when all heads of these layers are chosen, so that there are no random ones.
    """
    rng, resamples = np.random.default_rng(seed), resample_prompts(len(task), seed, task.clusters)
    chosen = [model.facts.check_head(Head(*head)) for head in heads]
    targets = _mark_mask(task, wrong_marks)
    others = [_layer_matched_heads(model, chosen, rng) for _ in range(n_draws)]
    conditions = [("repair", 0, chosen, targets), ("right", 0, chosen, _mark_mask(task, right_marks))]
    conditions += [("random_positions", draw, chosen, _random_positions(task, targets, rng)) for draw in range(n_draws)]
    conditions += [("random_heads", draw, drawn, targets) for draw, drawn in enumerate(others)]
    damage = tuple(base_interventions)
    names = [("clean", 0, []), *([("damaged", 0, [])] if damage else []), *(condition[:3] for condition in conditions)]
    variants = [damage] if damage else []
    variants += [(*damage, attend_to(who, torch.from_numpy(where))) for _, _, who, where in conditions]
    arguments = {"wrong_marks": list(wrong_marks), "right_marks": list(right_marks), "oracle": True}
    arguments |= {"heads": list(map(str, chosen)), "base_interventions": list(map(str, damage))}
    record = measurement_record(model, task, "attend to", seed=seed, **arguments)
    outcomes = [OUTCOMES.get(name) for name in ("accuracy", task.metric)]
    results = [sweep(model, task, variants, outcome, record=record) for outcome in outcomes]
    correct, metric = (np.stack([result.baseline, *result.values]) for result in results)
    interval, before = mean_interval(correct, resamples), correct[1 if damage else 0]
    table = pd.DataFrame(names, columns=["condition", "draw", "heads"])
    table["heads"] = [" ".join(map(str, row)) for row in table["heads"]]
    table = table.assign(oracle=table["condition"].isin(["repair", "right", "random_heads"]), **resamples.sizes)
    table["accuracy"], table["ci_low"], table["ci_high"] = interval.mean, interval.low, interval.high
    shares = {"repaired": (correct > before).mean(1), "broken": (correct < before).mean(1)}
    return Repair(table.assign(outcome=metric.mean(1), **shares), outcomes[1].unit, record)


def _mark_mask(task: Task, marks: Sequence[str]) -> Bool[np.ndarray, "n_examples pos"]:
    """True at the first token of each mark. Raises LookupError for a mark that some example lacks."""
    where = np.zeros((len(task), max(len(e.clean) for e in task)), dtype=bool)
    known = task.marks
    for name in marks:
        if name not in known:
            raise LookupError(f"No mark is called {name!r} in all prompts of {task.name!r}. There are: {', '.join(known)}.")
        where[range(len(task)), [e.marks[name][0] for e in task]] = True
    return where


def _random_positions(
    task: Task, targets: Bool[np.ndarray, "n_examples pos"], rng: np.random.Generator
) -> Bool[np.ndarray, "n_examples pos"]:
    """As many positions of each prompt, neither END nor targets."""
    where = np.zeros_like(targets)
    for row, own, example in zip(where, targets, task, strict=True):
        row[rng.choice(np.flatnonzero(~own[: len(example.clean) - 1]), int(own.sum()), replace=False)] = True
    return where


def _layer_matched_heads(model: Model, chosen: Sequence[Head], rng: np.random.Generator) -> list[Head]:
    """As many heads of each layer that are not chosen, or all there are. Raises ValueError if there are none."""
    drawn: list[Head] = []
    for layer in sorted({head.layer for head in chosen}):
        rest = [h for h in range(model.facts.n_heads) if Head(layer, h) not in chosen]
        n = min(len(rest), sum(head.layer == layer for head in chosen))
        drawn += [Head(layer, int(h)) for h in rng.choice(rest, n, replace=False)] if n else []
    if not drawn:
        raise ValueError(
            f"Repair with {' '.join(map(str, chosen))} has no control: all heads of their layers are chosen. Choose fewer."
        )
    return drawn
