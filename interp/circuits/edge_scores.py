"""A score for every edge: how much the outcome changes when it is shown what the corrupted prompt writes.

``exact`` corrupts every edge by itself. ``eap`` estimates all of them from one gradient (arXiv 2310.10348), the others from a mean of
gradients (arXiv 2403.17806): ``eap-ig`` along the straight path between the embeddings of the corrupted and the clean prompt ("inputs"),
``eap-clean-corrupted`` at its two ends, ``eap-ig-activations`` along such paths of the embedding, each layer's heads and each MLP in turn,
while what comes later follows; steps are equal and gradients taken at their midpoints. ``eap-ig-outputs`` (ours) takes what the reader
makes of the edge as it is, and a gradient on a path of each reader: nearest to ``exact``, and of the estimates the dearest.

``effect = metric(corrupted) - metric(clean)``: negative = the edge helped. Gradients vanish where attention is saturated:
``EdgeScores.floor`` says below which size an estimate is rounding, and nothing below it is ranked.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp._short_repr import short_repr
from interp.circuits.circuit import Circuit
from interp.circuits.edge_ablation import decompositions_with_ablation
from interp.circuits.methods import METHODS
from interp.graph import Edge, Graph
from interp.records import RunRecord
from interp.registry import check_name

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.tasks.task import Task

FLOOR = 1e-6
"""Of the largest score: what is smaller is rounding."""


@short_repr
@dataclass(frozen=True, eq=False)
class EdgeScores:
    """``values`` [n_edges n_examples] of the edges of ``graph``, in ``unit``; ``clean`` and ``corrupted`` [n_examples] are the outcome of
    both runs. ``record`` says how they were made."""

    method: str
    graph: Graph
    values: Float[np.ndarray, "n_edges n_examples"]
    clean: Float[np.ndarray, " n_examples"]
    corrupted: Float[np.ndarray, " n_examples"]
    unit: str
    record: RunRecord

    @property
    def effects(self) -> Float[np.ndarray, " n_edges"]:
        """Mean over examples; 0 where it is below the floor."""
        mean = self.values.mean(1)
        return np.where(np.abs(mean) < self.floor, 0.0, mean)

    @property
    def floor(self) -> float:
        """Scores below this size are rounding: 1e-6 of the largest."""
        return FLOOR * float(np.abs(self.values.mean(1)).max())

    @property
    def n_nonzero(self) -> int:
        """How many edges have a score above the floor."""
        return int((self.effects != 0).sum())

    def top(self, k: int) -> list[Edge]:
        """The ``k`` edges with the largest effects, by size; those below the floor are never returned."""
        effects = np.abs(self.effects)
        order = np.argsort(-effects, kind="stable")[: max(0, min(k, self.n_nonzero))]
        return [self.graph.edges[i] for i in order]

    def circuit(self, k: int) -> Circuit:
        """The top ``k`` edges, without those that change nothing (``Circuit.pruned``). Raises ValueError when nothing is left."""
        scores = dict(zip(self.graph.edges, self.effects.tolist(), strict=True))
        about = {"method": self.method, "k": k, "record": self.record.to_json()}
        found = Circuit(self.graph, frozenset(self.top(k)), scores, self.unit, self.record.model, about).pruned()
        if not found.edges:
            raise ValueError(
                f"The top {k} edges leave nothing: none of them lies on a way from the embedding to the logits "
                f"({self.n_nonzero} of {len(self.graph.edges)} edges have an effect above the floor). Take more edges."
            )
        return found

    def to_dataframe(self) -> pd.DataFrame:
        """One row an edge, largest effect first: ``edge writer reader qkv effect metric unit method ablation``."""
        import pandas as pd

        edges = self.graph.edges
        table = pd.DataFrame({"edge": [*map(str, edges)], "writer": [str(e.writer) for e in edges]})
        table["reader"], table["qkv"] = [str(e.reader) for e in edges], [e.qkv for e in edges]
        table["effect"], table["metric"], table["unit"] = self.effects, self.record.metric, self.unit
        table["method"], table["ablation"] = self.method, self.record.arguments.get("ablation", "")
        order = np.argsort(-np.abs(self.effects), kind="stable")
        return table.iloc[order].reset_index(drop=True)


def score_edges(
    model: Model,
    task: Task,
    *,
    method: str = "eap-ig",
    steps: int = 10,
    metric: str | None = None,
    ablation: str = "counterfactual",
    seed: int = 0,
    progress: Progress | None = None,
) -> EdgeScores:
    """A score for every edge of the model's graph on every example of the task.

    A corrupted edge shows its reader what ``ablation`` says (``counterfactual resample mean zero``; ``seed`` draws for ``resample``).
    Raises LookupError for an unknown method, ablation or metric; ValueError for an encoder, a model whose residual stream is no sum of what
    its parts write, a task without what the ablation needs, a metric without a gradient (estimates only), and where the clean and the
    corrupted run have the same outcome, so that there is nothing to explain.
    """
    import torch

    from interp.engine.edges.edge_attribution import edge_gradients
    from interp.engine.edges.edge_ig_outputs import edge_changes
    from interp.engine.edges.edge_patching import graph_of, patch_single_edges
    from interp.engine.gradients.attribution_patching import check_gradient
    from interp.engine.sweep.sweep import check_outcome, own_modules
    from interp.metrics.outcomes import OUTCOMES
    from interp.models.model import record_of

    check_name(method, METHODS, "method")
    if steps < 1:
        raise ValueError(f"steps={steps} is too few: take at least 1.")
    outcome, graph = OUTCOMES.get(metric or task.metric), graph_of(model)
    check_outcome(task, outcome)
    if method != "exact":
        check_gradient(outcome)
    values = np.empty((len(graph.edges), len(task)))
    ends = np.empty((2, len(task)))
    with model.lock, torch.no_grad(), own_modules(model) if method == "exact" else nullcontext():  # which have no gradients
        for rows, decomposition, read in decompositions_with_ablation(model, task, outcome, ablation, seed, progress):
            both = read(decomposition.ends)
            clean = both[:1]
            if method == "exact":
                found = patch_single_edges(decomposition, graph.edges, read) - clean
            elif method == "eap-ig-outputs":
                found = edge_changes(decomposition, graph, read, steps)
            else:
                found = edge_gradients(decomposition, graph, read, _interpolation_points(method, graph, steps))
            values[:, rows] = found.cpu().double().numpy()
            ends[:, rows] = both.cpu().double().numpy()
    arguments: dict[str, Any] = {**task.provenance, "method": method}
    arguments |= {"ablation": ablation} | ({"steps": steps} if method.startswith("eap-ig") else {})
    label = f"corrupted edge ({ablation})"
    record = record_of(model, task=task.name, arguments=arguments, interventions=(label,), metric=outcome.name, seed=seed)
    check_finite_and_gap(model, outcome.name, ends, values)
    return EdgeScores(method, graph, values, ends[0], ends[1], outcome.unit, record)


def _interpolation_points(method: str, graph: Graph, steps: int) -> Float[torch.Tensor, "n_runs n_writers"]:
    """How far each writer is moved in each run whose gradient counts."""
    from interp.engine.edges.edge_attribution import moved_in_turn

    ends = {"eap": [0.0], "eap-clean-corrupted": [0.0, 1.0]}
    groups = [[*group] for _, group in groupby(graph.writers, lambda writer: (writer.layer, writer.kind))]
    chosen = groups if method == "eap-ig-activations" else groups[:1]
    return moved_in_turn(graph, chosen, ends.get(method, [(k + 0.5) / steps for k in range(steps)]))


def check_finite_and_gap(model: Model, metric: str, ends: Float[np.ndarray, "2 n"], *values: np.ndarray) -> None:
    """Raises ValueError where something measured is no number, and where both ``ends``, clean and corrupted, are the same."""
    check_finite(model, metric, ends, *values)
    check_gap(ends[0], ends[1], metric)


def check_finite(model: Model, metric: str, *values: np.ndarray) -> None:
    """Raises ValueError where a model computes numbers that are none."""
    for found in values:
        if not np.isfinite(found).all():
            raise ValueError(
                f"{metric} comes to {found[~np.isfinite(found)][0]}: {model.facts.name} computes NaN or inf in {model.facts.dtype}. Load "
                f"it in float32 or check its weights with `interp doctor`."
            )


def check_gap(clean: Float[np.ndarray, " n"], corrupted: Float[np.ndarray, " n"], metric: str) -> None:
    """Raises ValueError when both runs have the same outcome."""
    gap, size = abs(clean.mean() - corrupted.mean()), max(np.abs(clean).max(), np.abs(corrupted).max())
    if not gap > 1e-6 * size:
        raise ValueError(
            f"The clean and the corrupted run have the same {metric} ({clean.mean():.4g}): there is no difference that edges could carry. "
            f"Take another metric, other corrupted prompts or another ablation."
        )
