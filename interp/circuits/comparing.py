"""What two circuits of one model share, beside what chance gives.

Chance draws as many edges (or heads) as each circuit has from all that there are; ``p_value`` is how often two such draws share as many
(hypergeometric). Late heads and large edges are in most circuits: a small p-value says that the two are no random sets, not that they are
the same mechanism. ``expected_in_layers`` draws as many heads of each layer instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.circuits.circuit import Circuit
from interp.circuits.reuse import overlap

if TYPE_CHECKING:
    import pandas as pd


def compare_circuits(first: Circuit, second: Circuit) -> pd.DataFrame:
    """One row for edges and one for heads: ``what pool n_first n_second shared jaccard expected p_value expected_in_layers p_in_layers``
    (the last two of heads only).

    Raises ValueError for circuits of two graphs.
    """
    import pandas as pd
    from scipy.stats import hypergeom

    _check(first, second)
    shape = (first.graph.n_layers, first.graph.n_heads)
    rows = []
    for what, a, b, pool in (
        ("edges", set(first.edges), set(second.edges), len(first.graph.edges)),
        ("heads", set(first.heads), set(second.heads), shape[0] * shape[1]),
    ):
        shared = len(a & b)
        row = {"what": what, "pool": pool, "n_first": len(a), "n_second": len(b), "shared": shared}
        row |= {"jaccard": shared / max(1, len(a | b)), "expected": len(a) * len(b) / pool}
        row["p_value"] = float(hypergeom.sf(shared - 1, pool, len(a), len(b)))
        rows.append(row)
    in_layers = overlap(first.heads, second.heads, shape)
    rows[1] |= {"expected_in_layers": in_layers.expected_in_layers, "p_in_layers": in_layers.p_in_layers}
    return pd.DataFrame(rows)


def score_agreement(first: Circuit, second: Circuit) -> float:
    """Spearman correlation of the sizes of the scores of all edges that both circuits have one for; NaN where it is not defined."""
    from scipy.stats import rankdata

    _check(first, second)
    both = [edge for edge in first.graph.edges if edge in first.scores and edge in second.scores]
    sizes = np.abs([[circuit.scores[edge] for edge in both] for circuit in (first, second)])
    if not both or (np.ptp(sizes, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(rankdata(sizes, axis=1))[0, 1])


def _check(first: Circuit, second: Circuit) -> None:
    if first.graph != second.graph:
        raise ValueError(
            f"The circuits have graphs of {first.graph} and {second.graph}: edges of two models are not the same, compare circuits of one."
        )
