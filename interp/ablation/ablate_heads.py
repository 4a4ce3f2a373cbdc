"""Importance of heads by taking each out of the run: the exact sweep, its gradient estimate, and the mixture of both.

``effect = metric(ablated) - metric(clean)``; negative = the head helped (for ``loss`` and ``kl``, positive).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import interventions
from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.engine.sweep.outcome import Outcome
    from interp.engine.sweep.resume_from_layer import Variant
    from interp.engine.sweep.sweep import Progress, SweepResult, UnitLedger
    from interp.models.model import Model
    from interp.records import RunRecord
    from interp.tasks.task import Task

ABLATIONS = {
    "zero": "the head writes nothing",
    "mean": "the head writes its mean over the prompts, at the ablated positions",
    "resample": "the head writes what it wrote for another prompt of equal length",
    "patch": "the head writes what it wrote for the corrupted prompt",
    "uniform": "the head looks at all visible tokens alike",
}
ESTIMATORS = {
    "attribution": "gradient estimate of the ablation in one backward pass",
    "adaptive": "gradient estimate for all heads, exact ablation for the top share",
}
METHODS = {**ABLATIONS, **ESTIMATORS}


@dataclass(frozen=True)
class CostEstimate:
    """What a sweep will cost: units of work, bytes above the loaded model, and seconds (measured on one clean pass)."""

    n_units: int
    bytes: int
    seconds: float


def ablate_heads(
    model: Model,
    task: Task,
    *,
    method: str = "mean",
    positions: str = "all",
    metric: str | None = None,
    heads: Sequence[Head] | None = None,
    pairs: bool = False,
    seed: int = 0,
    memory: int | None = None,
    top_share: float = 0.2,
    ablation: str = "mean",
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """The outcome of the task with each head (or each pair of heads) taken out, for every example.

    ``method`` is an ablation (``zero mean resample patch uniform``) or an estimate of ``ablation``: ``attribution`` for all heads;
    ``adaptive`` measures the top ``top_share`` of that estimate exactly, leaves the others out, and keeps the ``estimate``.
    ``positions`` is ``all``, ``end`` or a mark; ``metric`` defaults to the task's. ``memory`` is the budget in bytes above the loaded
    model; the units in a ``ledger`` are those of one budget, so a run goes on with the one it was begun with (``Writer.details``).
    Raises LookupError for unknown names and heads, ValueError for what cannot be done.
    """
    from interp.engine.gradients.attribution_patching import attribute, rank_variants
    from interp.engine.sweep.sweep import sweep

    outcome, kind, groups, record = _prepare(model, task, method, positions, metric, heads, pairs, seed, ablation, top_share)
    variants = build_variants(model, task, kind, positions, groups, seed)
    estimate = None
    if method == "attribution":
        return attribute(model, task, variants, outcome, record=record, progress=progress)
    if method == "adaptive":
        estimate = attribute(model, task, variants, outcome, record=record)
        chosen = set(rank_variants(estimate)[: max(1, round(top_share * len(groups)))])
        chosen |= {(head,) for group in chosen for head in group}  # a pair is read beside its heads
        variants = [v for v, group in zip(variants, groups, strict=True) if group in chosen]
    result = sweep(model, task, variants, outcome, record=record, memory=memory, ledger=ledger, progress=progress)
    return replace(result, estimate=estimate)


def estimate_cost(model: Model, task: Task, **arguments: Any) -> CostEstimate:
    """Cost of ``ablate_heads`` with the same arguments, and its errors: one clean pass over one prompt is timed, nothing else is run."""
    from inspect import signature
    from time import perf_counter

    import torch

    from interp.engine.sweep.work_units import plan_sweep

    options = {
        name: p.default for name, p in signature(ablate_heads).parameters.items() if p.kind is p.KEYWORD_ONLY
    } | arguments
    memory, _, _ = (options.pop(name) for name in ("memory", "ledger", "progress"))
    outcome, kind, groups, _ = _prepare(model, task, **options)
    if kind == "resample":
        resample_source_ids(task, options["seed"])
    kind = "zero" if kind != "uniform" else kind  # same cost, nothing to collect first
    variants = build_variants(model, task, kind, options["positions"], groups, 0)
    plan = plan_sweep(model, task, variants, outcome, memory, identity="plan")
    tokens = torch.tensor([task.examples[0].clean], device=model.device)
    with model.lock, torch.inference_mode():
        runner = model.hf or model.bridge
        runner(tokens)
        began = perf_counter()
        runner(tokens)
        once = perf_counter() - began
    per_work = once / (tokens.shape[1] * model.facts.n_layers)
    share = {"attribution": 3 * plan.clean_work, "adaptive": 3 * plan.clean_work + options["top_share"] * plan.work}
    return CostEstimate(plan.n_units, plan.bytes, per_work * share.get(options["method"], plan.work))


def build_variants(
    model: Model, task: Task, kind: str, positions: str, groups: Sequence[tuple[Head, ...]], seed: int
) -> list[Variant]:
    """One variant for each group of heads, all of them ablated in the same way."""
    make = _intervention_factory(model, task, kind, positions, seed)
    return [(make(group),) for group in groups]


def resample_source_ids(task: Task, seed: int) -> np.ndarray:
    """For each example another one of equal length that gives it its activations: a random cycle within each length.

    Raises ValueError when an example is the only one of its length.
    """
    source_ids = np.arange(len(task))
    rng = np.random.default_rng(seed)
    for length, indices in task.by_length().items():
        if len(indices) == 1:
            raise ValueError(
                f"resample needs another prompt of equal length for each example, and example {indices[0]} is the only one with "
                f"{length} tokens: add prompts or use mean."
            )
        order = rng.permutation(indices)
        source_ids[order] = np.roll(order, 1)
    return source_ids


def _intervention_factory(model: Model, task: Task, kind: str, positions: str, seed: int):
    import torch

    from interp.engine.forward.z_cache import cache_z

    if kind in ("zero", "uniform"):
        return lambda heads: getattr(interventions, kind)(heads, positions)
    if kind == "mean":
        means = cache_z(model, task).mean(positions, task.examples)
        return lambda heads: interventions.mean(heads, means, positions)
    if kind == "resample":
        source_ids, bank = torch.from_numpy(resample_source_ids(task, seed)), cache_z(model, task)
        return lambda heads: interventions.resample(heads, bank, source_ids, positions)
    bank = cache_z(model, task, "corrupted")
    return lambda heads: interventions.patch(heads, bank, positions)


def _prepare(
    model: Model,
    task: Task,
    method: str,
    positions: str,
    metric: str | None,
    heads: Sequence[Head] | None,
    pairs: bool,
    seed: int,
    ablation: str,
    top_share: float,
) -> tuple[Outcome, str, list[tuple[Head, ...]], RunRecord]:
    from interp.engine.forward.run import record_of

    check_name(method, METHODS, "method")
    check_name(ablation, ABLATIONS, "ablation")
    if not 0 < top_share <= 1:
        raise ValueError(f"top_share is {top_share:g}; it is a share of the heads, above 0 and at most 1.")
    outcome = OUTCOMES.get(metric or task.metric)
    chosen = [model.facts.check_head(Head(*h)) for h in heads] if heads else model.facts.heads()
    kind = ablation if method in ESTIMATORS else method
    if kind == "patch" and not task.has_corrupted:
        raise ValueError(f"Task {task.name!r} has no corrupted prompts, which patch needs: add them or use mean or resample.")
    groups: list[tuple[Head, ...]] = [(h,) for h in chosen]
    if pairs:
        groups += list(combinations(chosen, 2))
    arguments = {**task.provenance, "method": method, "positions": positions}
    if method in ESTIMATORS:
        arguments["ablation"] = ablation
    if method == "adaptive":
        arguments["top_share"] = top_share
    record = record_of(model, task=task.name, arguments=arguments, interventions=(kind,), metric=outcome.name, seed=seed)
    return outcome, kind, groups, record
