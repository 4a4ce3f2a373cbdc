"""How faithful a circuit is: what is left of a behaviour when every edge outside it is corrupted.

``faithfulness = (m(circuit) - m(nothing)) / (m(everything) - m(nothing))``, means over examples before dividing; 1 = as the model, 0 = as
the corrupted run, and neither is a bound. ``CPR`` is its integral over the share of edges, ``CMD`` that of its distance from 1, at the
ten sizes of MIB (arXiv 2504.13151), by trapezoids. Most of their weight lies above a fifth of all edges: read the curve, or ``log_area``,
in which every doubling of the circuit counts the same. What a corrupted edge shows is the ``ablation`` (``corruption.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from interp._short_repr import short_repr
from interp.circuits.circuit import check_graph
from interp.circuits.edge_ablation import decompositions_with_ablation
from interp.circuits.edge_scores import EdgeScores, check_finite_and_gap

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.records import RunRecord
    from interp.tasks.task import Task

MIB_EDGE_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""MIB's shares of all edges."""


@short_repr
@dataclass(frozen=True, eq=False)
class FaithfulnessCurve:
    """``table``: one row a size and kind of circuit (``found`` or ``random``, by draw): ``share n_edges kind draw faithfulness low high
    outcome ablation``; intervals are bootstraps over prompts. ``clean`` and ``corrupted`` are the mean outcomes of both runs, ``record``
    is that of the scores."""

    table: pd.DataFrame
    clean: float
    corrupted: float
    record: RunRecord

    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        found = self.table.query("kind == 'found'").drop_duplicates("share").sort_values("share")
        return found["share"].to_numpy(), found["faithfulness"].to_numpy()

    @property
    def cpr(self) -> float:
        """Integral of the faithfulness over the share of edges."""
        share, value = self._curve()
        return float(np.trapezoid(value, share))

    @property
    def cmd(self) -> float:
        """Integral of its distance from 1; smaller is better."""
        share, value = self._curve()
        return float(np.trapezoid(np.abs(1 - value), share))

    @property
    def log_area(self) -> float:
        """Mean faithfulness over the logarithm of the size, from the smallest to the largest (ours); NaN for one size."""
        share, value = self._curve()
        return float(np.trapezoid(value, np.log(share)) / np.log(share[-1] / share[0])) if len(share) > 1 else float("nan")

    def size_at(self, level: float = 0.85) -> int | None:
        """Edges of the smallest circuit from which on every larger one recovers ``level``; None where none does."""
        found = self.table.query("kind == 'found'").sort_values("n_edges", ascending=False)
        sizes, values = found["n_edges"].to_numpy(), found["faithfulness"].to_numpy()
        enough = sizes[np.cumsum(values < level) == 0]
        return int(enough.min()) if len(enough) else None


def circuit_outcomes(
    model: Model,
    task: Task,
    kept: Bool[np.ndarray, "n_circuits n_edges"],
    metric: str | None = None,
    progress: Progress | None = None,
    *,
    ablation: str = "counterfactual",
    seed: int = 0,
) -> Float[np.ndarray, "n_circuits n_examples"]:
    """The outcome of every example with all edges but the kept ones corrupted, for several circuits over the graph's edges.

    Raises what ``score_edges`` raises (among others, ValueError where the model with and without all of its edges has the same outcome),
    and ValueError for another number of edges.
    """
    import torch

    from interp.engine.edges.edge_patching import graph_of, patch_edge_sets
    from interp.engine.sweep.sweep import check_outcome, own_modules
    from interp.metrics.outcomes import OUTCOMES

    outcome, graph = OUTCOMES.get(metric or task.metric), graph_of(model)
    check_outcome(task, outcome)
    if kept.shape[1] != len(graph.edges):
        raise ValueError(
            f"The circuits have {kept.shape[1]:,} edges to keep or not, and {model.facts.name} has {len(graph.edges):,}: give one value "
            f"for each edge of its graph."
        )
    values, ends = np.empty((len(kept), len(task))), np.empty((2, len(task)))
    with model.lock, torch.inference_mode(), own_modules(model):
        for rows, decomposition, read in decompositions_with_ablation(model, task, outcome, ablation, seed, progress):
            values[:, rows] = read(patch_edge_sets(decomposition, graph, torch.from_numpy(~kept))).cpu().double().numpy()
            ends[:, rows] = read(decomposition.ends).cpu().double().numpy()
    check_finite_and_gap(model, outcome.name, ends, values)
    return values


def faithfulness_curve(
    model: Model,
    task: Task,
    scores: EdgeScores,
    *,
    shares: Sequence[float] = MIB_EDGE_SHARES,
    draws: int = 5,
    ablation: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FaithfulnessCurve:
    """Faithfulness of the top edges by |score| at every share of all edges, and of random circuits of the same sizes.

    Use other prompts than those of the scores. ``ablation`` is by default that of the scores. Raises ValueError for shares beyond 0 to 1,
    for scores of another model's graph, and what ``circuit_outcomes`` raises.
    """
    import pandas as pd

    from interp.statistics import bootstrap_weights

    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={tuple(shares)} are not shares of the edges: take numbers above 0 and up to 1.")
    check_graph(model, scores.graph, "These scores are")
    ablation = ablation or str(scores.record.arguments.get("ablation", "counterfactual"))
    n_edges, rng, weights = len(scores.graph.edges), np.random.default_rng(seed), bootstrap_weights(len(task), seed)
    ranked = np.argsort(-np.abs(scores.effects), kind="stable")
    orders = [("found", 0, ranked), *(("random", draw, rng.permutation(n_edges)) for draw in range(draws))]
    sizes = [max(1, int(share * n_edges)) for share in shares]
    circuits = [
        (share, n, kind, draw, order[:n]) for kind, draw, order in orders for share, n in zip(shares, sizes, strict=True)
    ]
    kept = np.zeros((len(circuits) + 2, n_edges), dtype=bool)
    for row, (*_, chosen) in zip(kept, circuits, strict=False):
        row[chosen] = True
    kept[-1] = True  # the row before it keeps nothing
    values = circuit_outcomes(model, task, kept, scores.record.metric, progress, ablation=ablation, seed=seed)
    nothing, everything = values[-2:]
    rows = []
    for (share, n, kind, draw, _), value in zip(circuits, values, strict=False):
        rows.append((share, n, kind, draw, *share_of(everything - nothing, value - nothing, weights), value.mean()))
    table = pd.DataFrame(rows, columns=["share", "n_edges", "kind", "draw", "faithfulness", "low", "high", "outcome"])
    table["ablation"] = ablation
    return FaithfulnessCurve(table, float(everything.mean()), float(nothing.mean()), scores.record)


def auroc(scores: Float[np.ndarray, " n_edges"], truth: Bool[np.ndarray, " n_edges"]) -> float:
    """The chance that a true edge has a larger |score| than another, ties counting half. Raises ValueError where all or none are true."""
    from scipy.stats import rankdata

    n = int(truth.sum())
    if not 0 < n < len(truth):
        raise ValueError(f"{n} of {len(truth)} edges are true: there is nothing to tell apart.")
    ranks = rankdata(np.abs(scores))
    return float((ranks[truth].sum() - n * (n + 1) / 2) / (n * (len(truth) - n)))


def share_of(
    gap: Float[np.ndarray, " n_examples"],
    part: Float[np.ndarray, " n_examples"],
    weights: Float[np.ndarray, "resamples n_examples"],
) -> tuple[float, float, float]:
    """The mean of ``part`` over the mean of ``gap``, with its 95% interval over resampled prompts."""
    from interp.statistics import expanded_levels

    low, high = np.quantile((weights @ part) / (weights @ gap), expanded_levels(len(gap)))
    return float(part.mean() / gap.mean()), float(low), float(high)
