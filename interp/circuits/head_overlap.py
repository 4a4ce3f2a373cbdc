"""Whether two tasks use the same heads, and whether a few heads set by hand repair one of them (arXiv 2310.08744).

Overlap: the top ``k`` heads of two tasks against chance. ``any`` head may be drawn (the hypergeometric distribution), or as many of each
layer as were found there (``in_layers``: what all permutations within layers would give, summed exactly); the second asks for more
than that both tasks use late layers. With ``n`` heads and ``k = 1`` no p-value can be below ``1 / n``: small models cannot show an overlap.

Repair: the rows with which chosen heads look from END are set to the places of the wrong answers, so that heads which suppress what they
find do so. It is told where the answer is, hence ``oracle``: it proves that a circuit is there, and is no way to answer better.

The paper's own figures are 25 of 32 heads (78 %) of GPT-2 Medium shared by IOI and coloured objects, chosen by path patching, and an
accuracy of 49.6 % repaired to 93.7 %.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool

from interp._short_repr import short_repr
from interp.heads import Head, HeadScores

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.sweep.resume_from_layer import Variant
    from interp.models.model import Model
    from interp.records import RunRecord
    from interp.tasks.task import Task

SHARES = (0.01, 0.02, 0.05, 0.1)


class Overlap(NamedTuple):
    """How many heads two sets share, what chance gives on average, and how often it gives as many (p-values)."""

    shared: int
    expected: float
    p_value: float
    expected_within_layers: float
    p_value_within_layers: float


def overlap(first: Collection[Head], second: Collection[Head], shape: tuple[int, int]) -> Overlap:
    """What two sets of heads of a model of ``shape`` (n_layers, n_heads) share, beside chance; a head given twice counts once.

    Raises LookupError for heads beyond the shape.
    """
    from scipy.stats import hypergeom

    def chance(pool: int, a: int, b: int) -> np.ndarray:
        return hypergeom.pmf(np.arange(min(a, b) + 1), pool, a, b)

    n_layers, n_heads = shape
    first, second = {*first}, {*second}
    for head in first | second:
        if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
            raise LookupError(f"Head {head} does not exist in {n_layers} layers x {n_heads} heads: give heads of one model.")
    shared = len(first & second)
    anywhere = chance(n_layers * n_heads, len(first), len(second))
    within = np.ones(1)
    for layer in range(n_layers):
        within = np.convolve(within, chance(n_heads, *(sum(h.layer == layer for h in heads) for heads in (first, second))))
    mean, more = (lambda p: float(np.arange(len(p)) @ p)), (lambda p: min(1.0, float(p[shared:].sum())))
    return Overlap(shared, mean(anywhere), more(anywhere), mean(within), more(within))


def head_overlap(first: HeadScores, second: HeadScores, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """What the top heads of two tasks, by magnitude, share: one row a share of all heads, of which ``k = ceil(share * n)`` are taken.

    Columns: ``share k shared shared_share`` (of k) and those of ``Overlap``. Raises ValueError for scores of two sizes and for shares
    beyond 0 to 1.
    """
    import pandas as pd

    shape = first.values.shape
    if shape != second.values.shape:
        raise ValueError(f"The scores have the shapes {shape} and {second.values.shape}: heads of two models are not the same.")
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={tuple(shares)} are not shares of the heads: take numbers above 0 and up to 1.")
    rows = []
    for share in shares:
        k = ceil(share * first.values.size)
        found = overlap(first.top(k), second.top(k), (shape[0], shape[1]))
        rows.append({"share": share, "k": k, "shared": found.shared, "shared_share": found.shared / k, **found._asdict()})
    return pd.DataFrame(rows)


@short_repr
@dataclass(frozen=True, eq=False)
class Repair:
    """``table``: one row a condition and draw: ``condition draw heads oracle n``, ``accuracy`` over the whole vocabulary with its 95%
    interval ``low high``, the task's own metric as ``outcome``, and the shares of prompts ``repaired`` and ``broken`` (wrong before and
    right now, and the reverse; against the damaged run where there is damage).

    Conditions: ``clean``; ``damaged``; ``repair`` and ``right`` (rows set to the places of wrong answers, and of the right one: both are
    told the answer); ``random_positions`` (as many others); ``random_heads`` (others of the same layers, rows as in ``repair``).
    """

    table: pd.DataFrame
    unit: str
    record: RunRecord


def repair(
    model: Model,
    task: Task,
    heads: Sequence[Head],
    wrong: Sequence[str],
    right: Sequence[str],
    *,
    damage: Variant = (),
    draws: int = 20,
    seed: int = 0,
) -> Repair:
    """Accuracy with ``heads`` looking, from END, at the marks ``wrong`` alike, beside its controls.

    ``damage`` are interventions that stay in all conditions but ``clean``. Raises LookupError for a mark or head that is not there,
    ValueError where every head of these layers is chosen, so that there are no random ones.
    """
    import pandas as pd
    import torch

    from interp.engine.sweep.sweep import sweep
    from interp.interventions import attend_to
    from interp.metrics.outcomes import OUTCOMES
    from interp.models.model import record_of
    from interp.statistics import bootstrap_weights, mean_interval

    rng, weights = np.random.default_rng(seed), bootstrap_weights(len(task), seed)
    chosen = [model.facts.check_head(Head(*head)) for head in heads]
    targets = _mark_mask(task, wrong)
    others = [_layer_matched_heads(model, chosen, rng) for _ in range(draws)]
    looks = [("repair", 0, chosen, targets), ("right", 0, chosen, _mark_mask(task, right))]
    looks += [("random_positions", draw, chosen, _random_positions(task, targets, rng)) for draw in range(draws)]
    looks += [("random_heads", draw, drawn, targets) for draw, drawn in enumerate(others)]
    names = [("clean", 0, []), *([("damaged", 0, [])] if damage else []), *(look[:3] for look in looks)]
    variants = [damage] if damage else []
    variants += [(*damage, attend_to(who, torch.from_numpy(where))) for _, _, who, where in looks]
    arguments = {**task.provenance, "wrong": list(wrong), "right": list(right), "oracle": True}
    arguments |= {"heads": list(map(str, chosen)), "damage": list(map(str, damage))}
    record = record_of(model, task=task.name, arguments=arguments, interventions=("attend to",), metric=task.metric, seed=seed)
    outcomes = [OUTCOMES.get(name) for name in ("accuracy", task.metric)]
    found = [sweep(model, task, variants, outcome, record=record) for outcome in outcomes]
    correct, metric = (np.stack([result.baseline, *result.values]) for result in found)
    interval, before = mean_interval(correct, weights), correct[1 if damage else 0]
    table = pd.DataFrame(names, columns=["condition", "draw", "heads"])
    table["heads"] = [" ".join(map(str, row)) for row in table["heads"]]
    table["oracle"], table["n"] = table["condition"].isin(["repair", "right", "random_heads"]), len(task)
    table["accuracy"], table["low"], table["high"] = interval.mean, interval.low, interval.high
    table["outcome"] = metric.mean(1)
    table["repaired"], table["broken"] = (correct > before).mean(1), (correct < before).mean(1)
    return Repair(table, outcomes[1].unit, record)


def _mark_mask(task: Task, marks: Sequence[str]) -> Bool[np.ndarray, "n_examples pos"]:
    """True at the first token of every mark. Raises LookupError for a mark that some example lacks."""
    where = np.zeros((len(task), max(len(e.clean) for e in task)), dtype=bool)
    for name in marks:
        if name not in task.marks:
            raise LookupError(
                f"No mark is called {name!r} in all prompts of {task.name!r}. There are: {', '.join(task.marks)}."
            )
        where[range(len(task)), [e.marks[name][0] for e in task]] = True
    return where


def _random_positions(
    task: Task, targets: Bool[np.ndarray, "n_examples pos"], rng: np.random.Generator
) -> Bool[np.ndarray, "n_examples pos"]:
    """As many positions of each prompt, END left out, none of them a target."""
    where = np.zeros_like(targets)
    for row, own, example in zip(where, targets, task, strict=True):
        row[rng.choice(np.flatnonzero(~own[: len(example.clean) - 1]), int(own.sum()), replace=False)] = True
    return where


def _layer_matched_heads(model: Model, chosen: Sequence[Head], rng: np.random.Generator) -> list[Head]:
    """As many heads of each layer that are not chosen, or all there are."""
    drawn: list[Head] = []
    for layer in sorted({head.layer for head in chosen}):
        rest = [h for h in range(model.facts.n_heads) if Head(layer, h) not in chosen]
        n = min(len(rest), sum(head.layer == layer for head in chosen))
        drawn += [Head(layer, int(h)) for h in rng.choice(rest, n, replace=False)] if n else []
    if not drawn:
        raise ValueError(
            f"Repair with {' '.join(map(str, chosen))} has no control: all heads of their layers are chosen. Leave some out."
        )
    return drawn
