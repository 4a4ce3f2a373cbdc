"""The effect of ablating each head: the exact sweep, its gradient estimate, or exact runs for the heads of largest estimate.

``effect = metric(ablated) - metric(clean)``; negative = the head helped (for ``answer_loss`` and ``kl``, positive).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import combinations
from time import perf_counter
from typing import TYPE_CHECKING, Any

from interp.ablation.ablations import StandIns, build_variants, check_ablation
from interp.errors import counted
from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.ablation.ablation_result import AblationResult
    from interp.engine.sweep.outcome import Outcome
    from interp.engine.sweep.sweep import Progress, UnitLedger
    from interp.models.model import Model
    from interp.records import RunRecord
    from interp.tasks.task import Task

ESTIMATORS = {
    "exact": "one run with each head ablated",
    "attribution": "gradient estimate for all heads, from one backward pass",
    "adaptive": "gradient estimate for all heads, exact runs for the heads of largest estimate",
}

TIMED_TOKENS = 128
"""Tokens of the pass that estimates of time rest on: a short prompt alone is slower for each of its tokens."""


@dataclass(frozen=True)
class CostEstimate:
    """Estimated cost of a sweep: units of work, bytes in addition to the loaded model, and seconds (from one timed clean pass)."""

    n_units: int
    bytes: int
    seconds: float

    @property
    def text(self) -> str:
        """The cost in words, without the seconds where they are not known (NaN)."""
        from interp.models.memory import format_bytes

        seconds = f"about {self.seconds:.1f} s plus loading, " if self.seconds == self.seconds else ""
        return f"{counted(self.n_units, 'unit')}, {seconds}{format_bytes(self.bytes)} in addition to the loaded model"


def ablate_heads(
    model: Model,
    task: Task,
    *,
    ablation: str = "mean",
    estimator: str = "exact",
    positions: str = "all",
    metric: str | None = None,
    heads: Sequence[Head] | None = None,
    pairs: bool = False,
    seed: int = 0,
    memory: int | None = None,
    top_share: float = 0.2,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> AblationResult:
    """The outcome of the task with each head (or each pair of heads) ablated, for every example.

    ``ablation`` is one of ``interp.ablation.ablations()``, such as ``zero``, ``mean`` or ``streaming:n_sink=4,n_recent=64``. ``estimator``
    is ``exact``; ``attribution``, a gradient estimate for all heads; or ``adaptive``, which measures only the ``top_share`` of heads with
    the largest estimate exactly and keeps the ``estimate``. ``positions`` is ``all``, ``end`` or a mark; ``metric`` defaults to the
    task's. ``memory`` is the budget in bytes in addition to the loaded model; the units in a ``ledger`` belong to one budget, so an
    interrupted run is resumed with the budget it was started with (``RunWriter.details``). Raises LookupError for unknown names and
    heads, ValueError for arguments that do not fit the task.
    """
    from interp.ablation.ablation_result import AblationResult
    from interp.engine.gradients.attribution_patching import attribute
    from interp.engine.sweep.sweep import rank_variants, sweep

    outcome, groups, record = _prepare(model, task, ablation, estimator, positions, metric, heads, pairs, seed, top_share)
    variants, estimate = build_variants(model, task, ablation, positions, groups, seed), None
    if estimator != "exact":
        shown = progress if estimator == "attribution" else None
        result = attribute(model, task, variants, outcome, record=record, progress=shown)
        estimate = AblationResult.of(result, model.facts, "attribution")
        if estimator == "attribution":
            return estimate
        chosen = set(rank_variants(estimate)[: _n_exact(groups, top_share)])
        chosen |= {(head,) for group in chosen for head in group}  # the interaction of a pair needs each head alone
        variants = [v for v, group in zip(variants, groups, strict=True) if group in chosen]
    result = sweep(model, task, variants, outcome, record=record, memory=memory, ledger=ledger, progress=progress)
    return AblationResult.of(result, model.facts, estimator, estimate)


def estimate_cost(model: Model, task: Task, **arguments: Any) -> CostEstimate:
    """The cost of ``ablate_heads`` with the same arguments, from one timed clean pass over one prompt; raises the same errors."""
    from interp.engine.sweep.work_units import batches, plan_sweep

    parameters = signature(ablate_heads).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} | arguments
    memory, _, _ = (options.pop(name) for name in ("memory", "ledger", "progress"))
    outcome, groups, _ = _prepare(model, task, **options)
    estimator = options["estimator"]
    if estimator == "adaptive":  # which of them are measured exactly is not known yet: as many, from all layers
        n_exact = _n_exact(groups, options["top_share"])
        groups = [groups[i * len(groups) // n_exact] for i in range(n_exact)]
    variants = build_variants(model, task, options["ablation"], options["positions"], groups, options["seed"], StandIns)
    plan = plan_sweep(model, task, variants, outcome, memory, identity="plan")
    estimate = 3 * plan.clean_work if estimator != "exact" else 0
    n_units, work = (len(batches(task)), estimate) if estimator == "attribution" else (plan.n_units, plan.work + estimate)
    return CostEstimate(n_units, plan.bytes, seconds_per_work(model, task) * work)


def seconds_per_work(model: Model, task: Task) -> float:
    """Seconds per token and layer, from clean passes over copies of the first prompt (about ``TIMED_TOKENS``), after a warm-up pass."""
    import torch

    tokens = torch.tensor([task.examples[0].clean], device=model.device)
    tokens = tokens.repeat(max(1, TIMED_TOKENS // tokens.shape[1]), 1)
    with model.lock, torch.inference_mode():
        forward = model.hf or model.bridge
        forward(tokens[:1])
        start = perf_counter()
        forward(tokens)
        return (perf_counter() - start) / (tokens.numel() * model.facts.n_layers)


def _n_exact(groups: Sequence[tuple[Head, ...]], top_share: float) -> int:
    """The number of groups that the adaptive estimator measures exactly."""
    return max(1, round(top_share * len(groups)))


def _prepare(
    model: Model,
    task: Task,
    ablation: str,
    estimator: str,
    positions: str,
    metric: str | None,
    heads: Sequence[Head] | None,
    pairs: bool,
    seed: int,
    top_share: float,
) -> tuple[Outcome, list[tuple[Head, ...]], RunRecord]:
    """The outcome, the groups of heads to ablate and the record; raises for every wrong argument."""
    from interp.models.model import record_of

    check_ablation(ablation, task)
    check_name(estimator, ESTIMATORS, "estimator")
    if not 0 < top_share <= 1:
        raise ValueError(f"top_share is {top_share:g}; it is a share of the heads, above 0 and at most 1.")
    outcome = OUTCOMES.get(metric or task.metric)
    if heads is not None and len(heads) == 0:
        raise ValueError("heads is empty: name at least one head, or leave it out for all of them.")
    chosen = model.facts.heads() if heads is None else [model.facts.check_head(Head(*h)) for h in heads]
    if pairs and len(chosen) < 2:
        raise ValueError(f"pairs=True needs at least two heads, and heads names only {chosen[0]}.")
    groups: list[tuple[Head, ...]] = [*combinations(chosen, 1), *(combinations(chosen, 2) if pairs else ())]
    arguments = {**task.provenance, "ablation": ablation, "estimator": estimator, "positions": positions}
    arguments |= {"top_share": top_share} if estimator == "adaptive" else {}
    record = record_of(model, task=task.name, arguments=arguments, interventions=(ablation,), metric=outcome.name, seed=seed)
    return outcome, groups, record
