"""Faithfulness of a circuit: the share of a behaviour that remains when every edge outside the circuit is corrupted.

``faithfulness = (m(circuit) - m(no edges)) / (m(all edges) - m(no edges))``, means over examples before dividing; 1 = as the
model, 0 = as the corrupted run, and neither is a bound. ``CPR`` is its integral over the share of edges, ``CMD`` that of its
distance from 1, at the ten sizes of MIB (arXiv 2504.13151), by trapezoids. Most of their weight lies above a fifth of all
edges: read the curve, or ``log_area``, in which every doubling counts the same. ``ablation`` is one of ``EDGE_ABLATIONS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from interp._short_repr import short_repr
from interp.circuits.circuit import check_graph
from interp.circuits.clean_and_corrupted_runs import MeasuredBatch, Measurement, measuring
from interp.circuits.edge_scores import EdgeScores
from interp.circuits.split_work_and_estimate_cost import circuit_work
from interp.circuits.table_and_plot_mixins import PlottedResult, TableResult
from interp.files import sha256
from interp.models.model import Model
from interp.records import RunRecord
from interp.statistics import Resamples, resample_prompts
from interp.tasks.task import Task

if TYPE_CHECKING:
    import torch

    from interp.engine.sweep.sweep import Progress, UnitLedger

MIB_EDGE_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The circuit sizes of MIB, as shares of all edges."""


@short_repr
@dataclass(frozen=True, eq=False)
class FaithfulnessCurve(TableResult, PlottedResult):
    """``table``: one row per size and kind (``circuit``, or ``random`` with one row per draw): ``share n_edges kind draw
    faithfulness ci_low ci_high outcome ablation``; 95% bootstrap intervals over prompts, or over their ``n_clusters``. ``clean`` and
    ``corrupted`` are the mean outcomes with all edges and with none; ``record`` is that of the scores."""

    figure = "faithfulness_plot"

    table: pd.DataFrame
    clean: float
    corrupted: float
    record: RunRecord

    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        own = self.table.query("kind == 'circuit'").drop_duplicates("share").sort_values("share")
        return own["share"].to_numpy(), own["faithfulness"].to_numpy()

    @property
    def cpr(self) -> float:
        """Integral of the faithfulness over the share of edges (MIB's CPR); larger is better."""
        share, value = self._curve()
        return float(np.trapezoid(value, share))

    @property
    def cmd(self) -> float:
        """Integral of the distance of the faithfulness from 1 (MIB's CMD); smaller is better."""
        share, value = self._curve()
        return float(np.trapezoid(np.abs(1 - value), share))

    @property
    def log_area(self) -> float:
        """Mean faithfulness over the logarithm of the size, from the smallest to the largest (ours); NaN for one size."""
        share, value = self._curve()
        return float(np.trapezoid(value, np.log(share)) / np.log(share[-1] / share[0])) if len(share) > 1 else float("nan")

    def size_at(self, level: float = 0.85) -> int | None:
        """Edges of the smallest circuit that, like every larger one, reaches faithfulness ``level``; None if none does."""
        own = self.table.query("kind == 'circuit'").sort_values("n_edges", ascending=False)
        sizes, values = own["n_edges"].to_numpy(), own["faithfulness"].to_numpy()
        reached = sizes[np.cumsum(values < level) == 0]
        return int(reached.min()) if len(reached) else None


def circuit_outcomes(
    model: Model,
    task: Task,
    edge_masks: Bool[np.ndarray, "n_circuits n_edges"],
    metric: str | None = None,
    progress: Progress | None = None,
    *,
    ablation: str = "counterfactual",
    seed: int = 0,
    ledger: UnitLedger | None = None,
) -> Float[np.ndarray, "n_circuits n_examples"]:
    """Outcomes of several circuits, each given as a mask over the graph's edges, with all other edges corrupted. Parts that are in
    ``ledger`` are not computed again.

    Raises what ``score_edges`` raises (for example ValueError when the model with and without all of its edges has the same
    outcome), and ValueError for masks of another length.
    """
    from interp.engine.edges.edge_patching import graph_of

    graph = graph_of(model)
    if edge_masks.shape[1] != len(graph.edges):
        raise ValueError(
            f"edge_masks has {edge_masks.shape[1]:,} columns, and the graph of {model.facts.name} has {len(graph.edges):,} edges: "
            f"give one value per edge."
        )
    with measuring(model, task, metric, ablation=ablation, seed=seed, fused=True, ledger=ledger) as measurement:
        return run_circuits(measurement, edge_masks, progress)


def run_circuits(
    measurement: Measurement,
    edge_masks: Bool[np.ndarray, "n_circuits n_edges"],
    progress: Progress | None = None,
    batches: Sequence[MeasuredBatch] | None = None,
) -> Float[np.ndarray, "n_circuits n_examples"]:
    """``circuit_outcomes`` in an open measurement, on ``batches`` of it that were kept."""
    import torch

    from interp.engine.edges.edge_patching import patch_edge_sets

    model, task, n = measurement.model, measurement.task, len(edge_masks)
    values, removed = measurement.zeros(n, len(task)), torch.from_numpy(~edge_masks)
    work, what = circuit_work(model, task, n, measurement.ablation, measurement.seed), sha256(np.packbits(edge_masks).tobytes())

    def compute(batch: MeasuredBatch, part: slice) -> torch.Tensor:
        return batch.read(patch_edge_sets(batch.decomposition, measurement.graph, removed[part]))

    for example_ids, found in measurement.computed(work, what, compute, progress, batches):
        values[:, example_ids] = np.concatenate([*found])
    return values


def faithfulness_curve(
    model: Model,
    task: Task,
    scores: EdgeScores,
    *,
    shares: Sequence[float] = MIB_EDGE_SHARES,
    n_draws: int = 5,
    ablation: str | None = None,
    seed: int = 0,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> FaithfulnessCurve:
    """Faithfulness of the top edges by |effect| at each of ``shares`` of all edges, beside ``n_draws`` random circuits each.

    Use other prompts than those of the scores. ``ablation`` is by default that of the scores; ``ledger`` is that of
    ``circuit_outcomes``. Raises ValueError for shares outside (0, 1], for scores of another model's graph, and what
    ``circuit_outcomes`` raises.
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={tuple(shares)} are not shares of the edges: give numbers above 0 and up to 1.")
    ablation = ablation_of_circuits(model, scores, ablation)
    n_edges, rng = len(scores.graph.edges), np.random.default_rng(seed)
    resamples = resample_prompts(len(task), seed, task.clusters)
    ranked = scores.ranking
    orders = [("circuit", 0, ranked), *(("random", draw, rng.permutation(n_edges)) for draw in range(n_draws))]
    sizes = [(share, max(1, int(share * n_edges))) for share in shares]
    circuits = [(share, n, kind, draw, order[:n]) for kind, draw, order in orders for share, n in sizes]
    edge_masks = np.zeros((len(circuits) + 2, n_edges), dtype=bool)
    for mask, (*_, edges) in zip(edge_masks, circuits, strict=False):
        mask[edges] = True
    edge_masks[-1] = True  # the last two rows: no edges, all edges
    how: dict[str, Any] = {"ablation": ablation, "seed": seed, "ledger": ledger}
    values = circuit_outcomes(model, task, edge_masks, scores.record.metric, progress, **how)
    corrupted, clean = values[-2:]
    rows = []
    for (share, n, kind, draw, _), value in zip(circuits, values, strict=False):
        rows.append((share, n, kind, draw, *share_of(clean - corrupted, value - corrupted, resamples), value.mean()))
    return FaithfulnessCurve(curve_table(rows, ablation, task), float(clean.mean()), float(corrupted.mean()), scores.record)


def ablation_of_circuits(model: Model, scores: EdgeScores, ablation: str | None) -> str:
    """What removed edges are replaced by, by default as for the scores. Raises ValueError for scores of another model's graph."""
    check_graph(model, scores.graph, "The scores are")
    return ablation or str(scores.record.arguments.get("ablation", "counterfactual"))


def curve_table(rows: Sequence[tuple[Any, ...]], ablation: str, task: Task) -> pd.DataFrame:
    """The table of a ``FaithfulnessCurve``."""
    table = pd.DataFrame(rows, columns=["share", "n_edges", "kind", "draw", "faithfulness", "ci_low", "ci_high", "outcome"])
    return table.assign(ablation=ablation, **({"n_clusters": task.n_clusters} if task.clusters else {}))


def auroc(scores: Float[np.ndarray, " n_edges"], truth: Bool[np.ndarray, " n_edges"]) -> float:
    """Area under the ROC curve of |score| for telling true edges from others, 0 to 1; ties count half.

    Raises ValueError when all edges or none are true.
    """
    from sklearn.metrics import roc_auc_score

    if not 0 < truth.sum() < len(truth):
        raise ValueError(f"{truth.sum()} of {len(truth)} edges are true: AUROC needs both true and other edges.")
    return round(float(roc_auc_score(truth, np.abs(scores))), 12)  # the sum of trapezoids misses 1 by its last bit


def share_of(
    gap: Float[np.ndarray, " n_examples"],
    part: Float[np.ndarray, " n_examples"],
    resamples: Resamples,
) -> tuple[float, float, float]:
    """The mean of ``part`` over the mean of ``gap``, with its 95% interval over resampled prompts."""
    from interp.statistics import expanded_levels

    weights = resamples.weights
    low, high = np.quantile((weights @ part) / (weights @ gap), expanded_levels(resamples.n_units))
    return float(part.mean() / gap.mean()), float(low), float(high)
