"""Stability of a circuit over prompts: how often resampled prompts (or clusters of them) select the same edges.

Scores are stored per example, so no further forward pass is needed. ``jaccard`` is the mean over pairs of resamples of ``|A and
B| / |A or B|``. Published EAP-IG circuits reached .67 (arXiv 2510.00845); from .8 on a circuit is called stable here (ours).
Errors that a method makes on all prompts alike do not show.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp._short_repr import short_repr
from interp.circuits.edge_scores import NOISE_FLOOR, EdgeScores
from interp.circuits.table_and_plot_mixins import TableResult
from interp.records import RunRecord
from interp.statistics import resample_prompts

STABLE = 0.8
MIN_RESAMPLES = 100


@short_repr
@dataclass(frozen=True, eq=False)
class Stability(TableResult):
    """``table``: one row per edge ever selected, most frequent first: ``edge frequency in_full_circuit effect ablation``.

    ``jaccard`` (0 to 1) is the mean over pairs of resamples, ``jaccard_with_full`` over pairs with the circuit of all prompts."""

    table: pd.DataFrame
    k: int
    jaccard: float
    jaccard_with_full: float
    record: RunRecord

    @property
    def stable(self) -> bool:
        """Whether ``jaccard`` is at least .8 (ours)."""
        return self.jaccard >= STABLE


def stability(scores: EdgeScores, k: int, *, n_resamples: int = MIN_RESAMPLES, seed: int = 0) -> Stability:
    """How often each edge is among the top ``k`` by |mean score| of resampled prompts, and how much such circuits overlap.

    Edges below the noise floor are never selected; circuits are not pruned. Raises ValueError for fewer than 100 resamples,
    fewer than 2 prompts or clusters, ``k`` below 1 or above the number of edges patched (``exact_top``, the only ones that are
    ranked), and scores of ``acdc``, which do not rank edges.
    """
    if n_resamples < MIN_RESAMPLES:
        raise ValueError(f"n_resamples={n_resamples} is too few to estimate frequencies: use at least {MIN_RESAMPLES}.")
    if k < 1:
        raise ValueError(f"k={k} is not a circuit size: use at least 1 edge.")
    if scores.method == "acdc":
        raise ValueError(
            "acdc decides edge by edge, on all prompts at once: run it again on other prompts to judge its stability."
        )
    n_patched = int(np.count_nonzero(~np.isnan(scores.effects)))
    if scores.estimate is not None and k > n_patched:
        raise ValueError(
            f"k={k} is above the {n_patched} edges that were patched, and the others were only estimated: use a lower k."
        )
    weights = resample_prompts(scores.values.shape[1], seed, scores.record.clusters, n_resamples).weights
    sizes = np.abs(np.concatenate([scores.values.mean(1)[None], weights @ scores.values.T]))
    selected = np.zeros(sizes.shape)
    np.put_along_axis(selected, np.argsort(-sizes, axis=1, kind="stable")[:, :k], 1, axis=1)
    selected *= sizes >= NOISE_FLOOR * np.nanmax(sizes, 1, keepdims=True)
    shared = selected @ selected.T
    n = shared.diagonal()
    jaccard = shared / (n[:, None] + n - shared)
    frequency = selected[1:].mean(0)
    order = np.lexsort([-sizes[0], -frequency])[: int((frequency > 0).sum())]
    table = pd.DataFrame({"edge": [str(scores.graph.edges[i]) for i in order], "frequency": frequency[order]})
    table["in_full_circuit"], table["effect"] = selected[0, order] > 0, scores.effects[order]
    table["ablation"] = scores.record.arguments.get("ablation", "")
    pairs = jaccard[1:, 1:][np.triu_indices(n_resamples, 1)]
    return Stability(table, k, float(pairs.mean()), float(jaccard[0, 1:].mean()), scores.record)
