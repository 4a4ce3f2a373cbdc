"""ACDC: edges corrupted for good, one after another, while that does little harm (arXiv 2304.14997).

Readers are visited from the logits down, the writers of each from the last up. An edge stays corrupted when that worsens the
mean outcome by less than ``threshold``, compared with all earlier removals. *Worse* is a larger KL or loss, and a smaller value
of every other metric: heads that work against the answer therefore count as a gain when removed, unless ``abs_value_threshold``
compares absolute changes. Edges into a head whose own output is no longer read are removed without a trial: they change
nothing. The order is part of the method; another order finds other edges.
"""

from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float

from interp.circuits.circuit import LOGITS
from interp.circuits.clean_and_corrupted_runs import check_gap, measuring, to_numpy
from interp.circuits.edge_scores import EdgeScores
from interp.engine.edges.edge_patching import patch_edge_sets
from interp.engine.sweep.sweep import Progress
from interp.models.model import Model
from interp.tasks.task import Task

SHARE = 0.01
"""The default threshold, as a share of the gap between the clean and the corrupted run."""


def acdc(
    model: Model,
    task: Task,
    *,
    threshold: float | None = None,
    metric: str | None = None,
    abs_value_threshold: bool = False,
    progress: Progress | None = None,
) -> EdgeScores:
    """The edges that ACDC keeps, each with the change measured by the trial that kept it, per example; removed edges have 0.

    ``scores.circuit(scores.n_nonzero)`` is the circuit. ``threshold`` is in the metric's unit. Raises LookupError for an
    unknown metric, ValueError for a threshold not above 0 and as ``score_edges``. The circuit may be empty.
    """
    if threshold is not None and not 0 < threshold < np.inf:
        raise ValueError(f"threshold={threshold} is not above 0: give how much worse one edge may make the metric.")
    with measuring(model, task, metric, fused=True) as measurement:
        outcome, edges = measurement.outcome, measurement.graph.edges
        sign = -1 if outcome.higher_is_better else 1
        removed, is_read = np.zeros(len(edges), dtype=bool), {LOGITS}
        values = measurement.zeros(len(edges), len(task))
        batches = [*measurement.batches()]  # residual streams are decomposed once for all trials

        def trials(removed: Bool[np.ndarray, "n_sets n_edges"]) -> Float[np.ndarray, "n_sets n_examples"]:
            outcomes = np.empty((len(removed), len(task)))
            for batch in batches:
                final = patch_edge_sets(batch.decomposition, measurement.graph, torch.from_numpy(removed))
                outcomes[:, batch.example_ids] = to_numpy(batch.read(final))
            return outcomes

        clean, corrupted = trials(np.array([[False], [True]]).repeat(len(edges), 1))
        measurement.check_finite(clean, corrupted)
        check_gap(clean, corrupted, outcome.name)
        threshold = SHARE * float(abs(corrupted.mean() - clean.mean())) if threshold is None else threshold
        current = clean
        for reader, numbered in groupby(reversed([*enumerate(edges)]), key=lambda pair: pair[1].reader):
            pending, n_trials = [i for i, _ in numbered], 1
            if reader not in is_read:
                removed[pending] = True
                continue
            while pending:
                candidates = pending[:n_trials]
                n_trials *= 2
                for i, value in zip(candidates, trials(_cumulative(removed, candidates)), strict=True):
                    del pending[0]
                    worse = sign * float((value - current).mean())
                    if (abs(worse) if abs_value_threshold else worse) >= threshold:
                        values[i], n_trials = value - current, 1
                        is_read.add(edges[i].writer)
                        break  # later trials of this round assumed its removal
                    current, removed[i] = value, True
            if progress:
                progress(int(removed.sum() + (values != 0).any(1).sum()), len(edges))
    arguments = {"method": "acdc", "threshold": threshold, "abs_value_threshold": abs_value_threshold}
    record = measurement.record("corrupted edge (counterfactual)", **arguments)
    return EdgeScores("acdc", measurement.graph, values, clean, corrupted, outcome.unit, record)


def _cumulative(removed: Bool[np.ndarray, " n_edges"], candidates: list[int]) -> Bool[np.ndarray, "n_sets n_edges"]:
    """The removed edges with the first, the first two ... of the candidates."""
    sets = np.tile(removed, (len(candidates), 1))
    sets[:, candidates] = np.tri(len(candidates), dtype=bool)
    return sets
