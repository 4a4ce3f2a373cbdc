"""Whether heads that were found matter: a task with the first k of them taken out together, beside as many other heads.

For every k the ``found`` heads are the k with the highest scores. The controls are k ``random`` heads, k random heads of the same layers
(``layer_matched``), and the k with the lowest scores (``bottom``, equal scores in random order). Random heads are drawn from those
that were not found: neither above the threshold nor among the highest ``max(ks)``. Each draw puts these heads into one order, which
gives its sets for every k, position and task, so that a draw is a curve. Where a layer has too few other heads, the rest of a
layer-matched set comes from the nearest layers; ``details["unmatched"]`` says how many.

``effect = metric(ablated) - metric(clean)``; negative = the heads helped. Positions ``all`` take the heads out of the whole pass, ``end``
only where the answer is predicted, so that what the heads did to the context stays (the published code of arXiv 2404.15574 masks
while it decodes, with ablation ``uniform``). After Wu et al. 2024, whose random heads are drawn anew for every cell and may be
retrieval heads; the other controls are this project's.

Intervals are 95%, by bootstrap. A set's is over prompts. That of a point of the curve is over prompts and draws: each resample weighs
the prompts anew and takes as many draws as there are, with replacement, at the levels of ``expanded_levels`` for the smaller of the two
counts. Nothing is corrected for the number of points: read the curve, not its best one. Prompts that all have the same
outcome give an interval without width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from interp._short_repr import short_repr
from interp.ablation.ablate_heads import ABLATIONS, build_variants
from interp.detectors.support.null_threshold import prompt_digests
from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp.registry import check_name
from interp.statistics import Interval, bootstrap_weights, expanded_levels, mean_interval

if TYPE_CHECKING:
    import pandas as pd

    from interp.detectors.support.detection import Detection
    from interp.engine.sweep.sweep import Progress, UnitLedger
    from interp.models.model import Model
    from interp.records import RunRecord
    from interp.tasks.task import Example, Task

GROUPS = ("found", "random", "layer_matched", "bottom")
DOSES = (1, 2, 5, 10, 20, 50, 100)
CONFIRM_ABLATIONS = tuple(name for name in ABLATIONS if name != "patch")
LEAST_DRAWS = 5
ANSWER_MARKS = ("needle", "value")
"""Marks of the place where the answer stands, by which results are told apart by depth."""


class HeadSet(NamedTuple):
    """Heads that are taken out together, highest score first where they were found."""

    group: str
    k: int
    draw: int
    heads: tuple[Head, ...]


@short_repr
@dataclass(frozen=True, eq=False)
class Confirmation:
    """The dose curve of a role.

    ``table`` has one row a set of heads: ``task positions group k draw heads``, the mean outcome ``value`` over ``n`` prompts with
    ``ci_low ci_high``, and ``effect`` with ``effect_ci_low effect_ci_high``; the clean run is ``found`` with k = 0. ``tables["curve"]`` has
    one row a point, the mean over its ``draws`` (of which ``sets`` differ), with the same numbers. ``tables["prompts"]`` has one row
    a set and prompt: ``example depth value baseline``, where ``depth`` is the share of the prompt that stands before the answer.
    """

    role: str
    table: pd.DataFrame
    record: RunRecord
    details: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def by_depth(self, bins: int = 5) -> pd.DataFrame:
        """The curve for each fifth of the prompt where the answer stands (or other ``bins``): ``task positions k group depth`` (the
        middle of the bin), ``value effect`` (means over prompts and draws) and ``n`` prompts. Empty where no depth is known."""
        rows = self.tables["prompts"].dropna(subset=["depth"])
        middle = (np.minimum(np.floor(rows["depth"] * bins), bins - 1) + 0.5) / bins
        rows = rows.assign(depth=middle, effect=rows["value"] - rows["baseline"])
        keys = ["task", "positions", "k", "group", "depth"]
        points = rows.groupby(keys)
        return points.agg(value=("value", "mean"), effect=("effect", "mean"), n=("example", "nunique")).reset_index()

    def to_dataframe(self) -> pd.DataFrame:
        """``table``."""
        return self.table

    def plot(self, **options: Any) -> Any:
        """The outcome against k, one line a group; options as in ``interp.figures.ablation_curve``."""
        from importlib import import_module

        return import_module("interp.figures").ablation_curve(self, **options)

    def _repr_html_(self) -> str:
        return self.tables["curve"].to_html(index=False, float_format="{:.3f}".format)


def confirm(
    detection: Detection,
    model: Model,
    task: Task,
    *,
    ks: Sequence[int] | None = None,
    draws: int = LEAST_DRAWS,
    ablation: str = "mean",
    positions: Sequence[str] = ("all", "end"),
    metric: str = "accuracy",
    specificity: Sequence[Task] = (),
    seed: int = 0,
    memory: int | None = None,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> Confirmation:
    """The task with the top k heads of a detection ablated together, for every k, beside random, layer-matched and bottom heads.

    ``ks`` are by default those of 1, 2, 5, 10, 20, 50, 100 for which twice as many heads remain as controls. ``ablation`` is ``zero mean
    resample uniform``, ``metric`` an outcome; ``specificity`` are tasks that should not need these heads, measured with the same sets.
    Raises ValueError for prompts that the heads were found on, for another model, for too few controls, and where the model answers
    no prompt; LookupError for unknown names.
    """
    from interp.engine.sweep.sweep import sweep
    from interp.models.model import record_of

    tasks, outcome = (task, *specificity), OUTCOMES.get(metric)
    doses = check_confirmation(detection, model, tasks, ks=ks, draws=draws, ablation=ablation, positions=positions, metric=metric)
    sets, unmatched = draw_sets(detection, doses, draws, seed)
    together = {frozenset(s.heads): s.heads for s in sets}
    variants = list(together.values())
    row = {heads: i for i, heads in enumerate(together)}
    chosen = {"role": detection.role, "ks": doses, "draws": draws, "ablation": ablation, "positions": list(positions)}
    asked = {**task.provenance, **chosen}
    if specificity:
        asked["specificity"] = [other.name for other in specificity]
    record = record_of(model, task=task.name, arguments=asked, interventions=(ablation,), metric=outcome.name, seed=seed)
    passes = [(question, where) for question in tasks for where in positions]
    found: dict[str, list[pd.DataFrame]] = {}
    for i, (question, where) in enumerate(passes):
        changes = build_variants(model, question, ablation, where, variants, seed)
        step = _part(progress, i, len(passes))
        result = sweep(model, question, changes, outcome, record=record, memory=memory, ledger=ledger, progress=step)
        _check_answers(model, question, outcome.name, result.baseline)
        values = np.stack([result.baseline, *(result.values[row[frozenset(s.heads)]] for s in sets)])
        for name, table in _tables([_CLEAN, *sets], values, question, where, seed).items():
            found.setdefault(name, []).append(table)
    tables = {name: _joined(parts) for name, parts in found.items()}
    top = detection.top(max(doses))
    details = {
        "found": [str(head) for head in top],
        "above_threshold": [str(head) for head in detection.detected],
        "n_controls": len(_outside(detection, top)),
        "unmatched": {str(k): n for k, n in unmatched.items() if n},
        "unit": outcome.unit,
    }
    return Confirmation(detection.role, tables.pop("sets"), record, details, tables)


def check_confirmation(
    detection: Detection,
    model: Model,
    tasks: Sequence[Task],
    *,
    ks: Sequence[int] | None,
    draws: int,
    ablation: str,
    positions: Sequence[str],
    metric: str,
) -> list[int]:
    """The numbers of heads that ``confirm`` takes out, ascending; raises for every argument that is wrong, and runs nothing."""
    from interp.engine.sweep.sweep import check_outcome
    from interp.tasks.positions import resolve_positions

    check_name(ablation, CONFIRM_ABLATIONS, "way to take found heads out")
    if draws < LEAST_DRAWS:
        raise ValueError(f"draws={draws} is too few: random heads differ among themselves, give at least {LEAST_DRAWS}.")
    made, facts = detection.record, model.facts
    if made.weights_digest != facts.weights_digest:
        raise ValueError(
            f"The heads were found in {made.model} (weights {made.weights_digest}), and this is {facts.name} (weights {facts.weights_digest}, "
            f"{facts.dtype}): confirm them in the model they were found in."
        )
    for task in tasks:
        check_outcome(task, OUTCOMES.get(metric))
        shared = len(detection.prompts & prompt_digests(example.clean for example in task))
        if shared:
            raise ValueError(
                f"{shared} of the {len(task)} prompts of task {task.name!r} are among those that the heads were found on: make the "
                f"task with another seed."
            )
        for where, example in product(positions, task):
            resolve_positions(where, len(example.clean), example.marks)
    return _doses(detection, ks)


def draw_sets(detection: Detection, ks: Sequence[int], draws: int, seed: int) -> tuple[list[HeadSet], dict[int, int]]:
    """The sets of heads to take out, and for each k how many heads of a layer-matched set stand in another layer than they should."""
    top = detection.top(max(ks))
    outside = _outside(detection, top)
    rngs = [np.random.default_rng([seed, 5, draw]) for draw in range(draws + 1)]
    orders = [[outside[i] for i in rng.permutation(len(outside))] for rng in rngs[1:]]
    lowest = _lowest(detection, rngs[0])
    sets: list[HeadSet] = []
    unmatched: dict[int, int] = {}
    for k in ks:
        sets += [HeadSet("found", k, 0, tuple(top[:k])), HeadSet("bottom", k, 0, tuple(lowest[:k]))]
        for draw, order in enumerate(orders):
            matched, unmatched[k] = _like(top[:k], order)
            sets += [HeadSet("random", k, draw, tuple(order[:k])), HeadSet("layer_matched", k, draw, matched)]
    return sorted(sets, key=lambda s: (GROUPS.index(s.group), s.k, s.draw)), unmatched


_CLEAN = HeadSet("found", 0, 0, ())


def _check_answers(model: Model, task: Task, metric: str, baseline: np.ndarray) -> None:
    if metric == "accuracy" and not baseline.any():
        raise ValueError(
            f"{model.facts.name} answers none of the {len(task)} prompts of task {task.name!r} correctly, so that nothing can be lost: "
            f"make the task easier, or use another metric, such as logit_diff."
        )


def _doses(detection: Detection, ks: Sequence[int] | None) -> list[int]:
    """The numbers of heads to take out, ascending. Raises ValueError where there are not as many heads, or others to compare with."""
    scored = len(detection.top(detection.scores.values.size))
    room = {k: len(_outside(detection, detection.top(k))) for k in {*(ks or ()), *DOSES} if 0 < k <= scored}
    fits = [k for k in sorted(room) if k <= room[k]]
    wanted = sorted({*ks}) if ks else [k for k in DOSES if 2 * k <= room.get(k, 0)]
    if not wanted:
        raise ValueError(
            f"{len(detection.detected)} of {detection.scores.values.size} heads were found to be {detection.role}, which leaves none to "
            f"compare them with: nothing can be confirmed."
        )
    wrong = next((k for k in wanted if k not in fits), None)
    if wrong is not None:
        least = f"{wrong} heads with a score and as many that were not found"
        raise ValueError(
            f"k={wrong} needs {least if wrong > 0 else 'to be at least 1'}: {scored} heads of {detection.record.model} have a score, "
            f"{room.get(wrong, 0)} of them are left as controls. Ask for other ks."
        )
    return wanted


def _outside(detection: Detection, top: Sequence[Head]) -> list[Head]:
    """The heads that controls are drawn from, in order."""
    found = {*top, *detection.detected}
    return [head for at in np.ndindex(detection.scores.values.shape) if (head := Head(*at)) not in found]


def _lowest(detection: Detection, rng: np.random.Generator) -> list[Head]:
    """All heads with a score, lowest first, equal ones in random order."""
    values = detection.scores.values
    heads = [Head(*at) for at in np.argwhere(~np.isnan(values)).tolist()]
    mixed = [heads[i] for i in rng.permutation(len(heads))]
    return sorted(mixed, key=lambda head: values[head])


def _like(heads: Sequence[Head], order: Sequence[Head]) -> tuple[tuple[Head, ...], int]:
    """The first heads of ``order`` that stand in the layers of ``heads``, where those run out in the nearest ones; and how many do."""
    free, lacking, chosen = list(order), [], []
    for head in heads:
        own = next((other for other in free if other.layer == head.layer), None)
        if own is None:
            lacking.append(head)
        else:
            chosen.append(own)
            free.remove(own)
    for head in lacking:
        chosen.append(min(free, key=lambda other: abs(other.layer - head.layer)))
        free.remove(chosen[-1])
    return tuple(chosen), len(lacking)


def _part(progress: Progress | None, i: int, n: int) -> Progress | None:
    """Progress of the ``i``-th of ``n`` sweeps as that of all of them."""
    return None if progress is None else lambda done, total: progress(i * total + done, n * total)


def _tables(sets: Sequence[HeadSet], values: np.ndarray, task: Task, where: str, seed: int) -> dict[str, pd.DataFrame]:
    """``sets``, ``curve`` and ``prompts`` of one task and position; ``values`` [n_sets n_prompts], those of the clean run first."""
    import pandas as pd

    n, effects = values.shape[1], values - values[0]
    weights = bootstrap_weights(n, seed)
    place = {"task": task.name, "positions": where}
    named = pd.DataFrame([{**place, "group": s.group, "k": s.k, "draw": s.draw, "heads": _said(s.heads)} for s in sets])
    numbers = _numbers(mean_interval(values, weights), mean_interval(effects, weights), n)
    points: dict[tuple[str, int], list[int]] = {}
    for i, s in enumerate(sets):
        points.setdefault((s.group, s.k), []).append(i)
    curve = []
    for (group, k), rows in points.items():
        value, effect = (_over_draws(part[rows], weights, seed) for part in (values, effects))
        different = len({frozenset(sets[i].heads) for i in rows})
        point = {**place, "group": group, "k": k, "draws": len(rows), "sets": different}
        curve.append(point | _numbers(value, effect, n))
    each = named.drop(columns="heads").loc[np.repeat(np.arange(len(sets)), n)].reset_index(drop=True)
    each["example"] = np.tile(np.arange(n, dtype="int32"), len(sets))
    each["depth"] = np.tile([_depth(example) for example in task], len(sets))
    each["value"], each["baseline"] = values.ravel(), np.tile(values[0], len(sets))
    return {"sets": named.assign(**numbers), "curve": pd.DataFrame(curve), "prompts": each}


def _over_draws(values: np.ndarray, weights: np.ndarray, seed: int) -> Interval:
    """Mean over draws and prompts with its interval over both; ``values`` [n_draws n_prompts]. Of one draw, its interval over prompts."""
    draws, n = values.shape
    if draws == 1:
        return mean_interval(values, weights)
    counts = np.random.default_rng([seed, 6]).multinomial(draws, np.full(draws, 1 / draws), size=len(weights)) / draws
    low, high = np.quantile((counts * (weights @ values.T)).sum(1), expanded_levels(min(draws, n)))
    return Interval(*(np.array([number]) for number in (values.mean(), low, high)))


def _numbers(value: Interval, effect: Interval, n: int) -> dict[str, Any]:
    columns = {"value": value.mean, "ci_low": value.low, "ci_high": value.high}
    columns |= {"effect": effect.mean, "effect_ci_low": effect.low, "effect_ci_high": effect.high}
    return {**{name: part if len(part) > 1 else float(part[0]) for name, part in columns.items()}, "n": n}


def _depth(example: Example) -> float:
    """The share of the prompt that stands before its answer; NaN where no mark says where that is."""
    start = next((example.marks[name][0] for name in ANSWER_MARKS if name in example.marks), np.nan)
    return start / len(example.clean)


def _said(heads: Sequence[Head]) -> str:
    return " ".join(map(str, heads))


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    joined = pd.concat(parts, ignore_index=True)
    whole = joined.select_dtypes("int64").columns
    return joined.astype(dict.fromkeys(whole, "int32"))
