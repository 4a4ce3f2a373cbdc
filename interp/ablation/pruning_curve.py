"""How many heads can be taken out before a task is lost, in an order of importance and in random ones.

Heads are taken out together, the least important first. The curve of a good order stays near the clean outcome for longer than
those of random orders; where it does not, the scores say nothing that any list of heads would not. Importances are those of the whole
model and are not measured again as heads go: heads that cover for each other are then undervalued. Michel et al. 2019, arXiv 1905.10650.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.ablation.ablate_heads import ABLATIONS, build_variants
from interp.heads import Head, HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.registry import check_name
from interp.statistics import Interval, bootstrap_weights, expanded_levels, mean_interval

if TYPE_CHECKING:
    import pandas as pd

    from interp.models.model import Model
    from interp.tasks.task import Task

MIN_RANDOM_ORDERS = 5


def pruning_curve(
    model: Model,
    task: Task,
    order: HeadScores | Sequence[Head],
    *,
    ablation: str = "zero",
    steps: int = 10,
    n_random: int = 5,
    layer_matched: bool = False,
    positions: str = "all",
    metric: str | None = None,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """The mean outcome as heads are taken out, in ``order`` and in ``n_random`` random orders of the same heads, at ``steps`` equal steps.

    ``order`` is a list of heads, the first to go first, or scores: the smallest in magnitude goes first, and heads without a number stay.
    One row for each ``curve`` (``importance``, ``random`` and, with ``layer_matched``, ``layer_matched``: random heads of the same layers
    step by step) and number of heads: ``n_removed``, ``share_removed`` (of the heads in the order), ``value`` (mean outcome in
    ``unit`` over ``n`` prompts and ``n_orders`` orders) with its 95% interval ``ci_low ci_high`` (over prompts and, for random
    orders, over orders as well), and how it was made. ``ablation`` is one of ``ABLATIONS``; all sets of heads are rows of one sweep,
    equal ones once; ``options`` (``memory``, ``ledger``, ``progress``) are those of ``sweep``. Raises LookupError for unknown names
    and heads, ValueError for fewer than 5 random orders, a head named twice, or steps that are no steps.
    """
    import pandas as pd

    from interp.engine.forward.run import record_of
    from interp.engine.sweep.sweep import sweep

    check_name(ablation, ABLATIONS, "ablation")
    heads = _in_order(model, order)
    if n_random < MIN_RANDOM_ORDERS or not 1 <= steps <= len(heads):
        raise ValueError(
            f"A pruning curve of {len(heads)} heads takes 1 to {len(heads)} steps and at least {MIN_RANDOM_ORDERS} random orders to compare "
            f"with, not steps={steps} and n_random={n_random}."
        )
    rng = np.random.default_rng(seed)
    curves = {"importance": [heads], "random": [[heads[i] for i in rng.permutation(len(heads))] for _ in range(n_random)]}
    if layer_matched:
        curves["layer_matched"] = [_within_layers(heads, rng) for _ in range(n_random)]
    counts = np.round(np.linspace(0, len(heads), steps + 1)).astype(int)
    sets = [tuple(sorted(one[:n])) for orders in curves.values() for one in orders for n in counts[1:]]
    different = list(dict.fromkeys(sets))
    outcome = OUTCOMES.get(metric or task.metric)
    arguments = {**task.provenance, "ablation": ablation, "positions": positions}
    record = record_of(model, task=task.name, arguments=arguments, interventions=(ablation,), metric=outcome.name, seed=seed)
    variants = build_variants(model, task, ablation, positions, different, seed)
    result = sweep(model, task, variants, outcome, record=record, **options)
    values = dict(zip(different, result.values, strict=True)) | {(): result.baseline}
    weights, tables = bootstrap_weights(len(task), seed), []
    for curve, orders in curves.items():
        measured = np.array([[values[tuple(sorted(one[:n]))] for one in orders] for n in counts])
        interval = _interval(measured, weights, seed)
        numbers = {"value": interval.mean, "ci_low": interval.low, "ci_high": interval.high}
        made = {"n": len(task), "n_orders": len(orders), "metric": outcome.name, "unit": outcome.unit, "ablation": ablation}
        origin = {"positions": positions, "task": task.name, "model": record.model, "revision": record.revision, "seed": seed}
        removed = {"n_removed": counts, "share_removed": counts / len(heads)}
        tables.append(pd.DataFrame({"curve": curve, **removed, **numbers, **made, **origin}))
    return pd.concat(tables, ignore_index=True)


def _in_order(model: Model, order: HeadScores | Sequence[Head]) -> list[Head]:
    """The heads in the order in which they go."""
    if isinstance(order, HeadScores):
        size = np.abs(order.values)
        flat = [int(i) for i in np.argsort(size.ravel(), kind="stable") if not np.isnan(size.ravel()[i])]
        order = [Head(*divmod(i, size.shape[1])) for i in flat]
    heads = [model.facts.check_head(Head(*head)) for head in order]
    twice = next((head for head in heads if heads.count(head) > 1), None)
    if twice is not None or not heads:
        raise ValueError(f"An order names every head once, and this one {f'names {twice} twice' if heads else 'is empty'}.")
    return heads


def _within_layers(heads: list[Head], rng: np.random.Generator) -> list[Head]:
    """Another order that takes as many heads from each layer, step by step."""
    shuffled = {layer: iter(rng.permutation([h.head for h in heads if h.layer == layer]).tolist()) for layer, _ in heads}
    return [Head(layer, next(shuffled[layer])) for layer, _ in heads]


def _interval(values: np.ndarray, weights: np.ndarray, seed: int) -> Interval:
    """Mean of outcomes [n_steps n_orders n_examples] over orders and examples, with its interval: examples are drawn by ``weights``
    and, where there are several, orders along with them."""
    n_orders = values.shape[1]
    if n_orders == 1:
        return mean_interval(values[:, 0], weights)
    drawn = (
        np.random.default_rng([seed, 4]).multinomial(n_orders, np.full(n_orders, 1 / n_orders), size=len(weights)) / n_orders
    )
    levels = expanded_levels(min(n_orders, values.shape[2]))
    bounds = [np.quantile(((one @ weights.T) * drawn.T).sum(0), levels) for one in values]
    low, high = np.transpose(bounds)
    return Interval(values.mean((1, 2)), low, high)
