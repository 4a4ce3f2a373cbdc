"""Outcome against number of ablated heads, in order of importance and in random orders (Michel et al. 2019, arXiv 1905.10650).

Heads are ablated cumulatively, the least important first. The curve of an informative order stays near the clean outcome for longer than
the curves of random orders. The order is fixed: importances are those of the intact model and are not recomputed as heads are
ablated, which underrates heads that back each other up.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from interp.ablation.ablations import build_variants, check_ablation
from interp.engine.sweep.sweep import sweep
from interp.heads import Head, HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.statistics import Interval, Resamples, draw_weights, expanded_levels, mean_interval, resample_prompts
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
    """The mean outcome at ``steps`` equal steps as heads are ablated, in ``order`` and in ``n_random`` random orders of the same heads.

    ``order`` is a list of heads, first ablated first, or scores: smallest magnitude first; heads without a score are never ablated. One
    row per ``curve`` (``importance``, ``random`` and, with ``layer_matched``, ``layer_matched``: random heads of the same layers at every
    step) and number of heads: ``n_ablated``, ``share_ablated`` (of the heads in the order), ``value`` (mean outcome in ``unit`` over
    ``n`` prompts and ``n_orders`` orders) with its 95% interval ``ci_low ci_high`` (over prompts, or their ``n_clusters``, and,
    for random orders, over orders), and the provenance. ``ablation`` as in ``ablate_heads``; ``options`` (``memory``, ``ledger``,
    ``progress``) are passed to ``sweep``.
    Raises LookupError for unknown names and heads, ValueError for too few random orders, a repeated head, or ``steps`` out of range.
    """
    check_ablation(ablation, task)
    heads = _head_order(model, order)
    if n_random < MIN_RANDOM_ORDERS or not 1 <= steps <= len(heads):
        raise ValueError(
            f"A pruning curve of {len(heads)} heads takes 1 to {len(heads)} steps and at least {MIN_RANDOM_ORDERS} random orders, not "
            f"steps={steps} and n_random={n_random}."
        )
    rng = np.random.default_rng(seed)
    curves = {"importance": [heads], "random": [[heads[i] for i in rng.permutation(len(heads))] for _ in range(n_random)]}
    if layer_matched:
        curves["layer_matched"] = [_layer_matched_order(heads, rng) for _ in range(n_random)]
    counts = np.round(np.linspace(0, len(heads), steps + 1)).astype(int)
    # the heads ablated together, by curve, order and step
    sets = {curve: [[tuple(sorted(one[:n])) for n in counts] for one in orders] for curve, orders in curves.items()}
    unique = list(dict.fromkeys(heads for orders in sets.values() for one in orders for heads in one[1:]))
    outcome = OUTCOMES.get(metric or task.metric)
    arguments = {**task.provenance, "ablation": ablation, "positions": positions}
    record = record_of(model, task=task.name, arguments=arguments, interventions=(ablation,), metric=outcome.name, seed=seed)
    variants = build_variants(model, task, ablation, positions, unique, seed)
    result = sweep(model, task, variants, outcome, record=record, **options)
    outcomes = dict(zip(unique, result.values, strict=True)) | {(): result.baseline}
    resamples, tables = resample_prompts(len(task), seed, task.clusters), []
    for curve, orders in sets.items():
        values = np.array([[outcomes[one[step]] for one in orders] for step in range(len(counts))])
        interval = _interval(values, resamples, seed)
        columns = {"curve": curve, "n_ablated": counts, "share_ablated": counts / len(heads), "value": interval.mean}
        columns |= {"ci_low": interval.low, "ci_high": interval.high, **resamples.sizes, "n_orders": len(orders)}
        tables.append(pd.DataFrame(columns))
    provenance = {"metric": outcome.name, "unit": outcome.unit, "ablation": ablation, "positions": positions, "task": task.name}
    provenance |= {"model": record.model, "revision": record.revision, "seed": seed}
    return pd.concat(tables, ignore_index=True).assign(**provenance)


def _head_order(model: Model, order: HeadScores | Sequence[Head]) -> list[Head]:
    """The heads in the order of ablation; scores are sorted by ascending magnitude."""
    if isinstance(order, HeadScores):
        size = replace(order, values=np.abs(order.values), bounds=(None, None))
        order = size.top(size.values.size, by="lowest")
    heads = [model.facts.check_head(Head(*head)) for head in order]
    duplicate = next((head for head in heads if heads.count(head) > 1), None)
    if duplicate is not None or not heads:
        raise ValueError(f"An order names every head once, and this one {f'names {duplicate} twice' if heads else 'is empty'}.")
    return heads


def _layer_matched_order(heads: list[Head], rng: np.random.Generator) -> list[Head]:
    """A random order with the same number of heads from each layer at every step."""
    shuffled = {layer: iter(rng.permutation([h.head for h in heads if h.layer == layer]).tolist()) for layer, _ in heads}
    return [Head(layer, next(shuffled[layer])) for layer, _ in heads]


def _interval(values: np.ndarray, resamples: Resamples, seed: int) -> Interval:
    """Mean over orders and examples of outcomes [n_steps n_orders n_examples], with its interval: examples are drawn as
    ``resamples`` and, where there are several orders, orders with replacement."""
    n_orders = values.shape[1]
    if n_orders == 1:
        return mean_interval(values[:, 0], resamples)
    weights = resamples.weights
    order_weights = draw_weights(np.random.default_rng([seed, 4]), n_orders, len(weights))
    levels = expanded_levels(min(n_orders, resamples.n_units))
    bounds = [np.quantile(((step @ weights.T) * order_weights.T).sum(0), levels) for step in values]
    return Interval(values.mean((1, 2)), *np.transpose(bounds))
