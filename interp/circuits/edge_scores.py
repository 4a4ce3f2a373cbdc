"""A score for every edge of the model's graph: the change of the outcome when the edge carries the writer's corrupted output.

``effect = metric(corrupted edge) - metric(clean)``; negative = the edge helped. With ``a`` and ``a'`` the writer's output on
the clean and the corrupted prompt, and ``g`` the gradient of the metric at the reader's input:

- ``exact``: activation patching, one edge at a time.
- ``eap``: ``(a' - a) . g(clean)`` (edge attribution patching, arXiv 2310.10348).
- ``eap-ig``: the same with the mean of ``g`` along the straight line between the corrupted and the clean embedding (EAP-IG,
  "inputs", arXiv 2403.17806).
- ``eap-clean-corrupted``: the mean of ``g`` at the two ends of that line (arXiv 2403.17806).
- ``eap-ig-activations``: the mean of ``g`` over such lines for the outputs of the embedding, of each layer's heads and of each
  MLP in turn, with everything after them recomputed. The moved output is a constant, so that a run says nothing of the edges before it
  (EAP-IG, "activations", as in the authors' code).
- ``eap-ig-activations-added`` (ours): the same with the move added to the output, through which the earlier edges keep their gradient.
- ``eap-ig-outputs`` (ours): the exact change of the reader's output, times the mean gradient there along a line of the reader's
  own. Closest to ``exact`` of the estimates, and the slowest.

Lines are cut into ``steps`` equal parts. ``rule="midpoint"`` takes the gradient in the middle of each; ``"left"`` at one end, as the
authors do: at ``k / steps`` of the way from the corrupted to the clean output, k = 0 ... steps - 1 for ``eap-ig`` and 1 ... steps for the
activations.

Gradients vanish where attention is saturated: below ``EdgeScores.noise_floor`` an estimate is rounding error and not ranked.

An estimate can be followed by exact patching of the edges it puts first (``exact_top``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from interp._short_repr import short_repr
from interp.circuits.circuit import Circuit, edge_table
from interp.circuits.clean_and_corrupted_runs import MeasuredBatch, Measurement, measuring
from interp.circuits.edge_method_and_ablation_names import EDGE_METHODS, IG_RULES, check_exact_top, line_options
from interp.circuits.split_work_and_estimate_cost import patching_work, scoring_work
from interp.graph import Edge, Graph
from interp.models.model import Model
from interp.records import RunRecord
from interp.registry import check_name
from interp.statistics import estimate_agreement
from interp.tasks.task import Task

if TYPE_CHECKING:
    import torch

    from interp.engine.sweep.sweep import Progress, UnitLedger

NOISE_FLOOR = 1e-6
"""Relative to the largest score: anything smaller is rounding error."""


@short_repr
@dataclass(frozen=True, eq=False)
class EdgeScores:
    """``values`` [n_edges n_examples] are the effects of the edges of ``graph``, in ``unit``; ``clean`` and ``corrupted``
    [n_examples] the outcomes of the clean and of the fully corrupted run.

    With ``exact_top``, ``estimate`` are the scores that chose the edges to patch, and ``values`` are NaN for all others, which rank
    below those patched with an effect, by their estimate.
    """

    method: str
    graph: Graph
    values: Float[np.ndarray, "n_edges n_examples"]
    clean: Float[np.ndarray, " n_examples"]
    corrupted: Float[np.ndarray, " n_examples"]
    unit: str
    record: RunRecord
    estimate: EdgeScores | None = None

    @property
    def effects(self) -> Float[np.ndarray, " n_edges"]:
        """Mean over examples, in ``unit``; 0 below the noise floor, NaN where only estimated."""
        mean = self.values.mean(1)
        return np.where(np.abs(mean) < self.noise_floor, 0.0, mean)

    @property
    def noise_floor(self) -> float:
        """Effects below this size are rounding error: 1e-6 of the largest, in ``unit``."""
        return NOISE_FLOOR * float(np.nanmax(np.abs(self.values.mean(1))))

    @property
    def ranking(self) -> Int[np.ndarray, " n_edges"]:
        """Indices of the edges, largest absolute effect first: those patched, then those only estimated, last those without effect."""
        sizes = self._sizes
        return np.lexsort((-sizes, np.isnan(self.effects), sizes == 0))

    @property
    def n_nonzero(self) -> int:
        """Number of edges with an effect, or else an estimate, above the noise floor."""
        return int(np.count_nonzero(self._sizes))

    @property
    def _sizes(self) -> Float[np.ndarray, " n_edges"]:
        """Absolute effects, of edges not patched the estimates."""
        effects = self.effects
        return np.abs(effects if self.estimate is None else np.where(np.isnan(effects), self.estimate.effects, effects))

    @property
    def agreement(self) -> dict[str, Any] | None:
        """``estimate_agreement`` of the edges patched (``top_overlap`` of half of them); None where nothing was estimated first."""
        if self.estimate is None:
            return None
        patched = ~np.isnan(self.effects)
        return estimate_agreement(self.estimate.effects[patched], self.effects[patched], max(1, int(patched.sum()) // 2))

    def top(self, k: int) -> list[Edge]:
        """The ``k`` edges with the largest absolute effects, in order; never one below the noise floor."""
        return [self.graph.edges[i] for i in self.ranking[: max(0, min(k, self.n_nonzero))]]

    def circuit(self, k: int) -> Circuit:
        """The top ``k`` edges, pruned of those on no path from the embedding to the logits (``Circuit.pruned``). Edges that were only
        estimated have no score in it.

        Raises ValueError when no edge remains.
        """
        effects = self.effects
        scores = {self.graph.edges[i]: float(effects[i]) for i in np.flatnonzero(~np.isnan(effects))}
        metadata = {"method": self.method, "k": k, "record": self.record.to_json()}
        circuit = Circuit(self.graph, frozenset(self.top(k)), scores, self.unit, self.record.model, metadata).pruned()
        if not circuit.edges:
            raise ValueError(
                f"The top {k} edges form no circuit: none lies on a path from the embedding to the logits "
                f"({self.n_nonzero} of {len(self.graph.edges)} edges have an effect above the noise floor). Use more edges."
            )
        return circuit

    def to_dataframe(self) -> pd.DataFrame:
        """One row per edge in the order of ``ranking``: ``edge writer reader qkv effect metric unit method ablation``, and ``estimate``
        where there is one."""
        table = edge_table(self.graph.edges).assign(effect=self.effects, metric=self.record.metric, unit=self.unit)
        table["method"], table["ablation"] = self.method, self.record.arguments.get("ablation", "")
        if self.estimate is not None:
            table["estimate"] = self.estimate.effects
        return table.iloc[self.ranking].reset_index(drop=True)

    def plot(self, k: int = 50, **options: Any) -> Any:
        """The circuit of the top ``k`` edges as a graph (a plotly figure); options as in ``interp.figures.circuit_graph``."""
        return self.circuit(k).plot(**options)


def score_edges(
    model: Model,
    task: Task,
    *,
    method: str = "eap-ig",
    steps: int = 10,
    rule: str = "midpoint",
    exact_top: int = 0,
    metric: str | None = None,
    ablation: str = "counterfactual",
    seed: int = 0,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> EdgeScores:
    """Effects of all edges of the model's graph on every example of the task, in the metric's unit.

    ``method`` is one of ``EDGE_METHODS``; a corrupted edge carries what ``ablation`` names (``counterfactual resample mean
    zero``; ``seed`` draws for ``resample``). Where ``method`` is an estimate, the ``exact_top`` edges with the largest are patched
    exactly. Parts that are in ``ledger`` are not computed again. Raises LookupError for an unknown method, rule, ablation or metric;
    ValueError for ``exact_top`` below 0 or beside ``exact``, an encoder, a model whose residual stream is not the sum of its heads' and
    MLPs' outputs, a task without what the ablation needs, a metric without a gradient (estimates only), and when the clean and the
    corrupted run have the same outcome.
    """
    check_name(method, EDGE_METHODS, "method")
    check_name(rule, IG_RULES, "rule")
    check_exact_top(method, exact_top)
    if steps < 1:
        raise ValueError(f"steps={steps} is too few: use at least 1.")
    how: dict[str, Any] = {"metric": metric, "ablation": ablation, "seed": seed, "ledger": ledger}
    if not exact_top:
        return _score_all(model, task, method, steps, rule, progress, **how)
    works = scoring_work(model, task, method, steps, ablation, seed), patching_work(model, task, exact_top, ablation, seed)
    n_estimates, n_patches = (sum(parts.count for parts in work) for work in works)
    first = progress and (lambda done, total: progress(done, total + n_patches))
    then = progress and (lambda done, total: progress(n_estimates + done, n_estimates + total))
    return _patch_top(model, task, _score_all(model, task, method, steps, rule, first, **how), exact_top, then, **how)


def _score_all(
    model: Model, task: Task, method: str, steps: int, rule: str, progress: Progress | None, **how: Any
) -> EdgeScores:
    """The scores of all edges by one method; ``how`` are metric, ablation, seed and ledger."""
    from interp.engine.edges.edge_attribution import edge_gradients
    from interp.engine.edges.edge_ig_reader_outputs import edge_changes
    from interp.engine.edges.edge_patching import patch_single_edges

    exact, lines = method == "exact", line_options(method, steps, rule)
    with measuring(model, task, gradient=not exact, fused=exact, **how) as measurement:
        graph, work = measurement.graph, scoring_work(model, task, method, steps, how["ablation"], how["seed"])
        values = measurement.zeros(len(graph.edges), len(task))
        by_runs = method not in ("exact", "eap-ig-outputs")
        fractions, replaced = _interpolation_points(method, graph, steps, rule) if by_runs else (None, None)

        def compute(batch: MeasuredBatch, part: slice) -> torch.Tensor:
            if exact:
                return patch_single_edges(batch.decomposition, graph.edges[part], batch.read) - batch.clean
            if fractions is None:
                return edge_changes(batch.decomposition, graph, batch.read, steps, range(graph.n_layers + 1)[part])
            some = fractions[part]
            constant = None if replaced is None else replaced[part]
            mean = edge_gradients(batch.decomposition, graph, batch.read, some, constant)
            return mean * (len(some) / len(fractions))

        for example_ids, found in measurement.computed(work, [method, lines], compute, progress):
            values[:, example_ids] = sum(found) if by_runs else np.concatenate([*found])
    return _scores(measurement, values, method, lines)


def _patch_top(model: Model, task: Task, estimate: EdgeScores, n: int, progress: Progress | None, **how: Any) -> EdgeScores:
    """The exact scores of the ``n`` edges that ``estimate`` puts first; ``how`` as in ``_score_all``."""
    from interp.engine.edges.edge_patching import patch_single_edges

    chosen = np.sort(estimate.ranking[:n])  # in the order of the graph: those of one part share the layers that are run
    edges = [estimate.graph.edges[i] for i in chosen]
    with measuring(model, task, fused=True, **how) as measurement:
        effects = measurement.zeros(len(edges), len(task))

        def compute(batch: MeasuredBatch, part: slice) -> torch.Tensor:
            return patch_single_edges(batch.decomposition, edges[part], batch.read) - batch.clean

        work = patching_work(model, task, n, how["ablation"], how["seed"])
        for example_ids, found in measurement.computed(work, ["exact", chosen.tolist()], compute, progress):
            effects[:, example_ids] = np.concatenate([*found])
    values = np.full_like(estimate.values, np.nan)
    values[chosen] = effects
    lines = {name: estimate.record.arguments[name] for name in ("steps", "rule") if name in estimate.record.arguments}
    return _scores(measurement, values, estimate.method, {**lines, "exact_top": n}, estimate)


def _scores(
    measurement: Measurement, values: np.ndarray, method: str, options: dict[str, Any], estimate: EdgeScores | None = None
) -> EdgeScores:
    record = measurement.record(f"corrupted edge ({measurement.ablation})", method=method, **options)
    ends = measurement.clean, measurement.corrupted, measurement.outcome.unit
    return EdgeScores(method, measurement.graph, values, *ends, record, estimate)


def _interpolation_points(
    method: str, graph: Graph, steps: int, rule: str
) -> tuple[Float[torch.Tensor, "n_runs n_writers"], Bool[torch.Tensor, "n_runs n_writers"] | None]:
    """How far each writer is moved toward its corrupted output (0 to 1) in each run whose gradient is averaged, and which writers'
    outputs are constants there."""
    from interp.engine.edges.edge_attribution import moved_in_turn

    ends = {"eap": [0.0], "eap-clean-corrupted": [0.0, 1.0]}
    groups = [[*group] for _, group in groupby(graph.writers, lambda writer: (writer.layer, writer.kind))]
    activations = method.startswith("eap-ig-activations")
    moved = groups if activations else groups[:1]
    first = 0.5 if rule == "midpoint" else 0.0 if activations else 1.0
    fractions = moved_in_turn(graph, moved, ends.get(method, [(k + first) / steps for k in range(steps)]))
    replaced = moved_in_turn(graph, moved, [1.0] * steps) > 0 if method == "eap-ig-activations" else None
    return fractions, replaced
