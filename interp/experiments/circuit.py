"""The circuit of a task: edges scored on some prompts, the largest kept, and their faithfulness on other prompts.

``effect = metric(corrupted edge) - metric(clean)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from interp.circuits.edge_method_and_ablation_names import (
    EDGE_ABLATIONS,
    EDGE_METHODS,
    IG_RULES,
    check_exact_top,
    line_options,
)
from interp.experiments.experiment import Progress, ResumableExperiment, Spec, python_arguments, python_task
from interp.experiments.prompts import check_prompts, discovery_and_test_tasks, performance_sentences
from interp.experiments.usage_error import usage_errors
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import CostEstimate
    from interp.circuits import Circuit, EdgeScores, FaithfulnessCurve
    from interp.circuits.split_work_and_estimate_cost import Parts
    from interp.models.model import Model
    from interp.store import RunWriter, StoredRun
    from interp.store.unit_ledger import FileLedger
    from interp.tasks.task import Task

COUNTERFACTUAL, EXACT, ACDC = "counterfactual", "exact", "acdc"
CIRCUIT_METHODS = {**EDGE_METHODS, ACDC: "edges are removed one after another while the metric stays within a threshold"}
DEFAULT_SHARE = 0.1
"""Share of all edges that is kept where neither a size nor a threshold is given."""


@dataclass(frozen=True, kw_only=True)
class CircuitSpec(Spec):
    """What to score, keep and test.

    ``size`` (edges), ``threshold`` (smallest effect, in the metric's unit) or ``faithfulness`` (share of the behaviour that they
    recover, which replaces the curve by bisection) decides which edges are kept; ``steps`` and ``rule``
    are for the methods with integrated gradients; the ``exact_top`` edges with the largest estimates are patched exactly; ``n_draws`` is
    the number of random circuits of each size; ``task_options`` belong to the task.
    """

    command: ClassVar[str] = "circuit"
    explicit: ClassVar[tuple[str, ...]] = ("model", "method", "n_prompts", "seed")

    task: str | None = None
    prompts: str | None = None
    chat: bool = False
    method: str = "eap-ig"
    n_prompts: int = 32
    seed: int = 0
    size: int | None = None
    threshold: float | None = None
    faithfulness: float | None = None
    steps: int = 10
    rule: str = "midpoint"
    exact_top: int = 0
    metric: str | None = None
    n_draws: int = 5
    ablation: str = COUNTERFACTUAL
    task_options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        from interp.metrics.outcomes import OUTCOMES

        check_prompts(self.task, self.prompts, self.chat)
        if self.metric is not None:
            check_name(self.metric, OUTCOMES.names(), "metric")
        check_name(self.method, CIRCUIT_METHODS, "method")
        check_name(self.rule, IG_RULES, "rule")
        check_name(self.ablation, EDGE_ABLATIONS, "ablation of edges")
        check_exact_top(self.method, self.exact_top)
        if self.method == ACDC and self.ablation != COUNTERFACTUAL:
            raise ValueError(
                f"acdc replaces edges by those of the corrupted prompt, not by {self.ablation}: leave out --ablation."
            )
        deciding = [f"--{name}" for name in ("size", "threshold", "faithfulness") if getattr(self, name) is not None]
        if len(deciding) > 1:
            raise ValueError(f"{' and '.join(deciding)} each decide which edges are kept: give one of them.")
        if self.method == ACDC and deciding not in ([], ["--threshold"]):
            raise ValueError(
                f"--method acdc decides itself how many edges are kept: give --threshold instead of {deciding[0]}."
            )
        if self.faithfulness is not None and not 0 < self.faithfulness < 1:
            raise ValueError(
                f"--faithfulness {self.faithfulness:g} is not between 0 and 1: give the share to recover, such as 0.85."
            )
        for f in fields(self):
            if f.name in ("steps", "rule") and getattr(self, f.name) != f.default and not self.method.startswith("eap-ig"):
                raise ValueError(
                    f"--{f.name} belongs to the methods with eap-ig, and the method is {self.method}: leave it out."
                )
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError(f"--threshold {self.threshold:g} is no size of an effect: give a number above 0.")

    def bind(self, model: Model) -> CircuitExperiment:
        paired = self.ablation == COUNTERFACTUAL
        where = (self.task, self.prompts, self.n_prompts, self.seed)
        tasks = discovery_and_test_tasks(model, *where, self.task_options, chat=self.chat, paired=paired)
        _check_edges(model, tasks, self)
        return CircuitExperiment(self, model, *tasks)

    def to_python(self) -> str:
        if self.prompts is not None:
            whole = python_task(None, self.prompts, self.n_prompts, self.seed, chat=self.chat)
            made = f"task, test_task = {whole}.halves({self.seed})\n"
        else:
            options = dict(self.task_options)
            tasks = (python_task(self.task, None, self.n_prompts, seed, options) for seed in (self.seed, self.seed + 1))
            made = "".join(f"{name} = {code}\n" for name, code in zip(("task", "test_task"), tasks, strict=True))
        scored = f"interp.score_edges(model, task, {python_arguments(**_score_options(self, self.metric))})"
        size = str(self.size or f"int({DEFAULT_SHARE} * len(scores.graph.edges))")
        if self.method == ACDC:
            made = f"from interp.circuits import acdc\n\n{made}"
            scored, size = f"acdc(model, task, {python_arguments(**_acdc_options(self, self.metric))})", "scores.n_nonzero"
        elif self.threshold is not None:
            size = f"int((abs(scores.effects) >= {self.threshold!r}).sum())"
        how = f"n_draws={self.n_draws}, seed={self.seed}"
        curve = f"curve = interp.faithfulness_curve(model, test_task, scores, {how})\n"
        if (level := self.faithfulness) is not None:
            curve = f"curve = interp.circuits.bisect_faithfulness(model, test_task, scores, {level!r}, {how})\n"
            size = f"curve.size_at({level!r}) or scores.n_nonzero"
        made += f"scores = {scored}\n"
        circuit = f"circuit = scores.circuit({size})\n"
        return self.python_model() + made + (circuit + curve if level is None else curve + circuit)


@dataclass(frozen=True)
class CircuitExperiment(ResumableExperiment[CircuitSpec]):
    """The circuit of one model, found on ``task`` and tested on ``test_task``."""

    kind: ClassVar[str] = "circuit"
    task: Task
    test_task: Task

    @property
    def metric(self) -> str:
        return self.spec.metric or self.task.metric

    def inputs(self) -> dict[str, Any]:
        task, spec = self.task, self.spec
        prompts = {"task": task.name, "arguments": task.arguments}
        prompts |= {"examples": task.digest(), "test_examples": self.test_task.digest()}
        how = {"method": spec.method, "ablation": spec.ablation, "metric": self.metric, "size": spec.size}
        how |= {"threshold": spec.threshold, "n_draws": spec.n_draws, "seed": spec.seed}
        how |= {"faithfulness": spec.faithfulness} if spec.faithfulness is not None else {}
        return {**prompts, **how, **_estimate_options(spec)}

    def name_parts(self) -> tuple[str, ...]:
        return "circuit", self.task.name, self.model_name, self.spec.method

    def title(self) -> str:
        exact = f", exact effects of the {self.spec.exact_top:,} largest" if self.spec.exact_top else ""
        return f"{self.spec.method} scores of all edges of {self.model.facts.name} on {self.task.name}{exact}"

    def plan(self, memory: int | None = None) -> CostEstimate:
        """Parts, bytes and seconds of the scores and of the curve; those of acdc, which decides as it goes, are not known."""
        from interp.ablation.ablate_heads import CostEstimate, seconds_per_work
        from interp.circuits.split_work_and_estimate_cost import circuit_work, estimate_circuit_cost
        from interp.engine.edges.edge_patching import graph_of

        graph, spec = graph_of(self.model), self.spec
        rate = seconds_per_work(self.model, self.task)
        held = 0
        if spec.faithfulness is not None:
            held = sum(parts.n_tokens for parts in circuit_work(self.model, self.test_task, 1, spec.ablation, spec.seed))
        cost = estimate_circuit_cost(self.model, *self._work(), spec.method, graph, spec.steps, rate, held)
        acdc = spec.method == ACDC
        return CostEstimate(len(graph.edges) + cost.n_units, cost.bytes, float("nan")) if acdc else cost

    def n_stored_units(self) -> int | None:
        return None if self.spec.method == ACDC else self._n_parts()

    def _work(self) -> tuple[list[Parts], list[Parts], list[Parts]]:
        """The parts of the scores (none of acdc), of the exact ones among them, and of the curve."""
        from interp.circuits.faithfulness import MIB_EDGE_SHARES
        from interp.circuits.split_work_and_estimate_cost import bisection_work, circuit_work, patching_work, scoring_work
        from interp.engine.edges.edge_patching import graph_of

        spec, how = self.spec, (self.spec.ablation, self.spec.seed)
        own_size = (spec.size, spec.threshold) != (None, None)  # beside those of MIB, of which the default size is one
        n_circuits = (1 + spec.n_draws) * (len(MIB_EDGE_SHARES) + own_size) + 2
        scored = [] if spec.method == ACDC else scoring_work(self.model, self.task, spec.method, spec.steps, *how)
        patched = patching_work(self.model, self.task, spec.exact_top, *how) if spec.exact_top else []
        if spec.faithfulness is None:
            return scored, patched, circuit_work(self.model, self.test_task, n_circuits, *how)
        n_edges = len(graph_of(self.model).edges)
        return scored, patched, bisection_work(self.model, self.test_task, n_edges, spec.n_draws, *how)

    def _n_parts(self) -> int:
        return sum(parts.count for work in self._work() for parts in work)

    def performance_sentences(self) -> list[str]:
        return performance_sentences(self.model, [self.test_task], self.metric)

    def measure(self, **options: Any) -> tuple[Circuit, EdgeScores, FaithfulnessCurve]:
        from interp.circuits import bisect_faithfulness, faithfulness_curve

        ledger, progress, n_parts = options["ledger"], options["progress"], self._n_parts()
        scored = 0

        def scoring(done: int, total: int) -> None:
            nonlocal scored
            scored = total
            progress(done, max(total, n_parts))

        with usage_errors():
            scores = self._scores(ledger, progress and scoring)
            testing = progress and (lambda done, total: progress(scored + done, scored + total))
            how: dict[str, Any] = {"n_draws": self.spec.n_draws, "seed": self.spec.seed, "ledger": ledger, "progress": testing}
            if (level := self.spec.faithfulness) is not None:
                curve = bisect_faithfulness(self.model, self.test_task, scores, level, **how)
                return scores.circuit(curve.size_at(level) or scores.n_nonzero), scores, curve
            k = self._size(scores)
            circuit, shares = scores.circuit(k), _shares(scores, min(k, scores.n_nonzero))
            return circuit, scores, faithfulness_curve(self.model, self.test_task, scores, shares=shares, **how)

    def publish(self, writer: RunWriter, result: tuple[Circuit, EdgeScores, FaithfulnessCurve]) -> StoredRun:
        from interp.store import write_circuit

        circuit, scores, curve = result
        discovery = {example.clean for example in self.task}
        details: dict[str, Any] = {"n_discovery_prompts": len(self.task), "n_test_prompts": len(self.test_task)}
        details["n_shared_prompts"] = sum(example.clean in discovery for example in self.test_task)
        if (level := self.spec.faithfulness) is not None:
            details["bisection"] = {"level": level, "size": curve.size_at(level)}
        elif 1 in curve.table["share"].to_numpy():  # that of acdc ends at the circuit
            details |= {"cpr": curve.cpr, "cmd": curve.cmd, "size_at_85": curve.size_at()}
        return write_circuit(writer, circuit, scores, curve, **details)

    def _scores(self, ledger: FileLedger, progress: Progress | None) -> EdgeScores:
        from interp.circuits import acdc, score_edges

        if self.spec.method == ACDC:
            return acdc(self.model, self.task, **_acdc_options(self.spec, self.metric), progress=progress)
        options = _score_options(self.spec, self.metric)
        return score_edges(self.model, self.task, **options, ledger=ledger, progress=progress)

    def _size(self, scores: EdgeScores) -> int:
        """How many edges are kept. A threshold keeps none that was only estimated. Raises ValueError where none is."""
        if self.spec.size is not None:
            return self.spec.size
        is_acdc, threshold = self.spec.method == ACDC, self.spec.threshold
        if not is_acdc and threshold is None:
            return max(1, int(DEFAULT_SHARE * len(scores.graph.edges)))
        sizes = abs(scores.effects)
        sizes = sizes[sizes == sizes]
        n_kept = scores.n_nonzero if threshold is None or is_acdc else int((sizes >= threshold).sum())
        if not n_kept:
            largest = "" if is_acdc else f" The largest effect is {sizes.max():.3g} {scores.unit}."
            used = scores.record.arguments.get("threshold", threshold)
            raise ValueError(f"The threshold {used:.3g} leaves no edge: give a lower one.{largest}")
        return n_kept


def _score_options(spec: CircuitSpec, metric: str | None) -> dict[str, Any]:
    """The arguments of ``score_edges``."""
    return {
        "method": spec.method,
        "metric": metric,
        "ablation": spec.ablation,
        "seed": spec.seed,
        **_estimate_options(spec),
    }


def _estimate_options(spec: CircuitSpec) -> dict[str, Any]:
    """The options of estimates, as records and identities state them."""
    return line_options(spec.method, spec.steps, spec.rule) | ({"exact_top": spec.exact_top} if spec.exact_top else {})


def _acdc_options(spec: CircuitSpec, metric: str | None) -> dict[str, Any]:
    return {"threshold": spec.threshold, "metric": metric, "abs_value_threshold": True}


def _check_edges(model: Model, tasks: tuple[Task, Task], spec: CircuitSpec) -> None:
    """Raises ValueError for a model without edges, prompts without what the ablation or the metric needs, and a metric without the gradient
    that the method needs."""
    import torch

    from interp.circuits.edge_replacement import check_edge_ablation
    from interp.engine.edges.edge_patching import graph_of
    from interp.engine.edges.residual_decomposition import decompose_residual
    from interp.engine.sweep.outcome import check_gradient, check_outcome
    from interp.metrics.outcomes import OUTCOMES

    outcome = OUTCOMES.get(spec.metric or tasks[0].metric)
    n_edges = len(graph_of(model).edges)
    if spec.size is not None and spec.size > n_edges:
        raise ValueError(
            f"--size {spec.size:,} is more than the {n_edges:,} edges of {model.facts.name}: give at most that many."
        )
    with model.lock, torch.inference_mode():
        decompose_residual(model, tasks[0].examples[:1])  # refuses a residual stream that is not the sum of its parts
    for task in tasks:
        check_edge_ablation(task, spec.ablation)
        check_outcome(task, outcome)
    if spec.method not in (EXACT, ACDC):
        check_gradient(outcome)


def _shares(scores: EdgeScores, k: int) -> list[float]:
    """The circuit sizes of MIB and the circuit's own, as shares of all edges; acdc does not rank the edges that it removes."""
    from interp.circuits.faithfulness import MIB_EDGE_SHARES

    n_edges = len(scores.graph.edges)
    own = min(1.0, (k + 0.5) / n_edges)
    return sorted({own, *(s for s in MIB_EDGE_SHARES if int(s * n_edges) != k and (scores.method != ACDC or s < own))})
