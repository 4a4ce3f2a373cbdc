"""Overlap of two circuits of one model, compared with chance.

Chance draws as many edges (or heads) as each circuit has; ``p_value`` is the probability that two such draws share as many
(hypergeometric). Late heads and large edges are in most circuits: a small p-value says that the two are not random sets, not
that they are the same mechanism. ``expected_within_layers`` draws as many heads of each layer instead.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import hypergeom, spearmanr

from interp.circuits.circuit import Circuit
from interp.circuits.head_overlap import overlap


def compare_circuits(first: Circuit, second: Circuit) -> pd.DataFrame:
    """One row for edges and one for heads: ``what pool n_first n_second shared jaccard expected p_value expected_within_layers
    p_value_within_layers ablation_first ablation_second`` (within layers: heads only; ablations: those of the scores).

    Raises ValueError for circuits of different graphs.
    """
    _check(first, second)
    graph, (n, m), shared = first.graph, (len(first), len(second)), len(first.edges & second.edges)
    pool = len(graph.edges)
    chance = {"expected": n * m / pool, "p_value": float(hypergeom.sf(shared - 1, pool, n, m))}
    heads = overlap(first.heads, second.heads, (graph.n_layers, graph.n_heads))._asdict()
    sizes = (len(first.heads), len(second.heads))
    rows = [
        {"what": "edges", "pool": pool, "n_first": n, "n_second": m, "shared": shared, **chance},
        {"what": "heads", "pool": graph.n_layers * graph.n_heads, "n_first": sizes[0], "n_second": sizes[1], **heads},
    ]
    table = pd.DataFrame(rows).assign(ablation_first=first.ablation, ablation_second=second.ablation)
    either = table["n_first"] + table["n_second"] - table["shared"]
    table.insert(5, "jaccard", table["shared"] / either.clip(lower=1))
    return table


def score_agreement(first: Circuit, second: Circuit) -> float:
    """Spearman correlation of |score| over the edges scored in both circuits, -1 to 1; NaN if undefined."""
    _check(first, second)
    both = [edge for edge in first.graph.edges if edge in first.scores and edge in second.scores]
    sizes = np.abs([[circuit.scores[edge] for edge in both] for circuit in (first, second)])
    if not both or (np.ptp(sizes, axis=1) == 0).any():
        return float("nan")
    correlation: Any = spearmanr(*sizes)
    return float(correlation.statistic)


def _check(first: Circuit, second: Circuit) -> None:
    if first.graph != second.graph:
        raise ValueError(f"The circuits have graphs of {first.graph} and {second.graph}: compare circuits of one model.")
