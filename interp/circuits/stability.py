"""Whether other prompts of the same kind would give the same circuit: the top edges, chosen again from resampled prompts.

Scores are kept for every example, so that no new pass is needed. ``jaccard`` is the mean over pairs of resamples of ``shared / either``.
Published circuits of EAP-IG reached .67 (arXiv 2510.00845); from .8 on a circuit is called stable here (ours). It says nothing of what
a method gets wrong on all prompts alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp._short_repr import short_repr
from interp.circuits.edge_scores import FLOOR, EdgeScores

if TYPE_CHECKING:
    import pandas as pd

    from interp.records import RunRecord

STABLE = 0.8
LEAST = 100


@short_repr
@dataclass(frozen=True, eq=False)
class Stability:
    """``table``: one row an edge that some resample chose, most frequent first: ``edge frequency chosen effect ablation``; ``chosen`` says
    whether all prompts together choose it. ``jaccard`` is the mean of pairs of resamples, ``jaccard_with_full`` that of a resample and the
    circuit of all prompts; both from 0 to 1. ``record`` is that of the scores."""

    table: pd.DataFrame
    k: int
    jaccard: float
    jaccard_with_full: float
    record: RunRecord

    @property
    def stable(self) -> bool:
        """Whether pairs of resamples share enough: a ``jaccard`` of .8 (ours)."""
        return self.jaccard >= STABLE


def stability(scores: EdgeScores, k: int, *, resamples: int = LEAST, seed: int = 0) -> Stability:
    """How often each edge is among the top ``k`` by |mean score| of resampled prompts, and how much such circuits share.

    Edges below the floor are never chosen; circuits are not pruned. Raises ValueError for fewer than 100 resamples, fewer than 2 prompts, a
    ``k`` below 1, and scores that only say what was kept (``acdc``).
    """
    import pandas as pd

    from interp.statistics import bootstrap_weights

    if resamples < LEAST:
        raise ValueError(f"resamples={resamples} are too few to say how often an edge is chosen: take at least {LEAST}.")
    if k < 1:
        raise ValueError(f"k={k} is no size of a circuit: take at least 1 edge.")
    if scores.method == "acdc":
        raise ValueError(
            "acdc decides edge by edge, on all prompts at once: search again on other prompts to see how stable it is."
        )
    weights = bootstrap_weights(scores.values.shape[1], seed, resamples)
    sizes = np.abs(np.concatenate([scores.values.mean(1)[None], weights @ scores.values.T]))
    chosen = np.zeros(sizes.shape)
    np.put_along_axis(chosen, np.argsort(-sizes, axis=1, kind="stable")[:, :k], 1, axis=1)
    chosen *= sizes >= FLOOR * sizes.max(1, keepdims=True)
    shared = chosen @ chosen.T
    n = shared.diagonal()
    jaccard = shared / (n[:, None] + n - shared)
    frequency = chosen[1:].mean(0)
    order = np.lexsort([-sizes[0], -frequency])[: int((frequency > 0).sum())]
    table = pd.DataFrame({"edge": [str(scores.graph.edges[i]) for i in order], "frequency": frequency[order]})
    table["chosen"], table["effect"] = chosen[0, order] > 0, scores.effects[order]
    table["ablation"] = scores.record.arguments.get("ablation", "")
    pairs = jaccard[1:, 1:][np.triu_indices(resamples, 1)]
    return Stability(table, k, float(pairs.mean()), float(jaccard[0, 1:].mean()), scores.record)
