"""The number of top-ranked edges from which a circuit reaches a given faithfulness, by bisection over the ranking.

Where one size is asked for, a curve runs many circuits that do not bear on it: bisection runs at most ``log2(n_edges) + 2``. Faithfulness
need not grow with the size. What holds is that the size found reaches the level, that one edge fewer does not, and that every larger
size tried reaches it and every smaller one does not; sizes that were not tried may do otherwise.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from interp.circuits.clean_and_corrupted_runs import measuring
from interp.circuits.edge_scores import EdgeScores
from interp.circuits.faithfulness import FaithfulnessCurve, ablation_of_circuits, curve_table, run_circuits, share_of
from interp.circuits.split_work_and_estimate_cost import bisection_work
from interp.models.model import Model
from interp.statistics import resample_prompts
from interp.tasks.task import Task

if TYPE_CHECKING:
    from interp.engine.sweep.sweep import Progress, UnitLedger


def bisect_faithfulness(
    model: Model,
    task: Task,
    scores: EdgeScores,
    level: float = 0.85,
    *,
    n_draws: int = 5,
    ablation: str | None = None,
    seed: int = 0,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> FaithfulnessCurve:
    """The sizes that bisection tries for faithfulness ``level`` (0 to 1), with ``n_draws`` random circuits of the size it finds.

    ``curve.size_at(level)`` is that size; None where all edges with an effect do not reach the level. The size is chosen on these
    prompts: its faithfulness on others may be lower. The residual streams of all prompts are held in memory. Raises ValueError for a level
    outside (0, 1), scores of another model's graph or of ``acdc``, which does not rank edges, and what ``score_edges`` raises.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level:g} is no share of the behaviour to reach: give a number between 0 and 1.")
    if scores.method == "acdc":
        raise ValueError("acdc does not rank the edges that it keeps, so there is no size to find: use its threshold instead.")
    ablation = ablation_of_circuits(model, scores, ablation)
    n_edges, ranking, resamples = len(scores.graph.edges), scores.ranking, resample_prompts(len(task), seed, task.clusters)
    with measuring(model, task, scores.record.metric, ablation=ablation, seed=seed, fused=True, ledger=ledger) as measurement:
        batches, rows = [*measurement.batches()], []
        n_parts, done = sum(parts.count for parts in bisection_work(model, task, n_edges, n_draws, ablation, seed)), count(1)
        shown = progress and (lambda *_: progress(next(done), n_parts))

        def run(kind: str, size: int, orders: list[np.ndarray]) -> float:
            """The faithfulness of the first ``size`` edges of the last one of these orders."""
            edge_masks = np.zeros((len(orders), n_edges), dtype=bool)
            for mask, order in zip(edge_masks, orders, strict=True):
                mask[order[:size]] = True
            gap = measurement.clean - measurement.corrupted
            for draw, value in enumerate(run_circuits(measurement, edge_masks, shown, batches)):
                share = share_of(gap, value - measurement.corrupted, resamples)
                rows.append((size / n_edges, size, kind, draw, *share, value.mean()))
            return rows[-1][4]

        too_few, enough = 0, scores.n_nonzero
        reached = enough == n_edges or run("circuit", enough, [ranking]) >= level
        while reached and enough - too_few > 1:
            middle = (too_few + enough) // 2
            too_few, enough = (too_few, middle) if run("circuit", middle, [ranking]) >= level else (middle, enough)
        if n_draws:
            rng = np.random.default_rng(seed)
            run("random", enough, [rng.permutation(n_edges) for _ in range(n_draws)])
        if progress:
            progress(n_parts, n_parts)  # of which bisection may need fewer
    table = curve_table(rows, ablation, task)
    return FaithfulnessCurve(table, float(measurement.clean.mean()), float(measurement.corrupted.mean()), scores.record)
