"""ACDC: edges corrupted for good, one after another, as long as that does little harm (arXiv 2304.14997).

Readers are visited from the logits down, the writers of each from the last up. An edge stays corrupted when that makes the mean outcome
worse by less than ``threshold``; what it changes is counted against what all earlier removals left. *Worse* is a larger KL or loss, and a
smaller value of every other metric: heads that work against the answer are then removed as a gain, unless ``absolute`` counts every
change. Edges into a head that nobody reads any more go without a trial: they change nothing. The order is part of the method: another
one finds other edges.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from interp.circuits.circuit import LOGITS
from interp.circuits.edge_ablation import check_pairs
from interp.circuits.edge_scores import EdgeScores, check_finite_and_gap

if TYPE_CHECKING:
    from interp.engine.sweep.outcome import Outcome
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.tasks.task import Task

SHARE = 0.01
"""The threshold, as a share of the gap between the clean and the corrupted run, where none is given."""


def acdc(
    model: Model,
    task: Task,
    *,
    threshold: float | None = None,
    metric: str | None = None,
    absolute: bool = False,
    progress: Progress | None = None,
) -> EdgeScores:
    """The edges that ACDC keeps, each with what the trial that kept it changed, per example; all removed edges have 0.

    ``scores.circuit(scores.n_nonzero)`` is the circuit. ``threshold`` is in the metric's unit. Raises LookupError for an unknown metric,
    ValueError for a threshold that is not positive and for what ``score_edges`` refuses. A threshold that leaves nothing is an answer
    here (``n_nonzero`` is 0).
    """
    import torch

    from interp.engine.edges.edge_patching import graph_of
    from interp.engine.sweep.sweep import check_outcome, own_modules
    from interp.metrics.outcomes import OUTCOMES
    from interp.models.model import record_of

    outcome, graph = OUTCOMES.get(metric or task.metric), graph_of(model)
    check_outcome(task, outcome)
    check_pairs(task)
    if threshold is not None and not 0 < threshold < np.inf:
        raise ValueError(f"threshold={threshold} is not above 0: give how much worse one edge may make {outcome.name}.")
    sign = -1 if outcome.higher_is_better else 1
    gone, heard = np.zeros(len(graph.edges), dtype=bool), {LOGITS}
    values = np.zeros((len(gone), len(task)))
    with model.lock, torch.inference_mode(), own_modules(model):
        trials = _trials(model, task, outcome)
        clean, corrupted = trials(np.array([[False], [True]]).repeat(len(gone), 1))
        check_finite_and_gap(model, outcome.name, np.stack([clean, corrupted]))
        threshold = SHARE * float(abs(corrupted.mean() - clean.mean())) if threshold is None else threshold
        now = clean
        for reader, numbered in groupby(reversed([*enumerate(graph.edges)]), key=lambda pair: pair[1].reader):
            waiting, together = [i for i, _ in numbered], 1
            if reader not in heard:
                gone[waiting] = True
                continue
            while waiting:
                chosen = waiting[:together]
                together *= 2
                for i, value in zip(chosen, trials(_growing(gone, chosen)), strict=True):
                    del waiting[0]
                    worse = sign * float((value - now).mean())
                    if (abs(worse) if absolute else worse) >= threshold:
                        values[i], together = value - now, 1
                        heard.add(graph.edges[i].writer)
                        break  # the trials behind it thought it gone
                    now, gone[i] = value, True
            if progress:
                progress(int(gone.sum() + (values != 0).any(1).sum()), len(gone))
    arguments = {
        **task.provenance,
        "method": "acdc",
        "threshold": threshold,
        "absolute": absolute,
        "ablation": "counterfactual",
    }
    record = record_of(
        model, task=task.name, arguments=arguments, interventions=("corrupted edge (counterfactual)",), metric=outcome.name
    )
    return EdgeScores("acdc", graph, values, clean, corrupted, outcome.unit, record)


def _growing(gone: Bool[np.ndarray, " n_edges"], more: list[int]) -> Bool[np.ndarray, "n_sets n_edges"]:
    """What is gone, with the first, the first two ... of ``more``."""
    sets = np.tile(gone, (len(more), 1))
    sets[:, more] = np.tri(len(more), dtype=bool)
    return sets


def _trials(
    model: Model, task: Task, outcome: Outcome
) -> Callable[[Bool[np.ndarray, "n_sets n_edges"]], Float[np.ndarray, "n_sets n_examples"]]:
    """What gives the outcome of every example with sets of edges corrupted; streams are opened once for all trials."""
    import torch

    from interp.engine.edges.edge_patching import graph_of, patch_edge_sets
    from interp.engine.edges.residual_decomposition import decompose_task

    opened, graph = [*decompose_task(model, task, outcome)], graph_of(model)

    def trials(gone: np.ndarray) -> np.ndarray:
        values = np.empty((len(gone), len(task)))
        for rows, decomposition, read in opened:
            values[:, rows] = read(patch_edge_sets(decomposition, graph, torch.from_numpy(gone))).cpu().double().numpy()
        return values

    return trials
