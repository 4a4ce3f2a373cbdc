"""Whether two tasks use the same heads (arXiv 2310.08744): the overlap of their top heads, compared with chance.

Chance draws as many heads from the whole model (hypergeometric distribution) or, in ``*_within_layers``, as many of each layer (the
distribution over all permutations within layers, summed exactly); the second is not passed merely because both tasks use late
layers. With ``n`` heads and ``k = 1`` no p-value can be below ``1 / n``: small models cannot show an overlap.

The paper reports 25 of 32 heads (78%) of GPT-2 Medium shared by IOI and coloured objects, selected by path patching.
"""

from collections.abc import Collection, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from interp.heads import Head, HeadScores

SHARES = (0.01, 0.02, 0.05, 0.1)


class Overlap(NamedTuple):
    """Number of heads that two sets share, its expectation by chance, and the p-values of sharing as many."""

    shared: int
    expected: float
    p_value: float
    expected_within_layers: float
    p_value_within_layers: float


def overlap(first: Collection[Head], second: Collection[Head], shape: tuple[int, int]) -> Overlap:
    """The overlap of two sets of heads in a model of ``shape`` (n_layers, n_heads); a head given twice counts once.

    Raises LookupError for heads outside the shape.
    """

    def chance(pool: int, a: int, b: int) -> np.ndarray:
        return hypergeom.pmf(np.arange(min(a, b) + 1), pool, a, b)

    n_layers, n_heads = shape
    first, second = {*first}, {*second}
    for head in first | second:
        if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
            raise LookupError(f"Head {head} does not exist in {n_layers} layers x {n_heads} heads: give heads of one model.")
    shared = len(first & second)
    anywhere = chance(n_layers * n_heads, len(first), len(second))
    within = np.ones(1)
    for layer in range(n_layers):
        within = np.convolve(within, chance(n_heads, *(sum(h.layer == layer for h in heads) for heads in (first, second))))
    mean, more = (lambda p: float(np.arange(len(p)) @ p)), (lambda p: min(1.0, float(p[shared:].sum())))
    return Overlap(shared, mean(anywhere), more(anywhere), mean(within), more(within))


def head_overlap(first: HeadScores, second: HeadScores, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Overlap of two tasks' top heads by absolute score: one row per share of all heads, with ``k = ceil(share * n)`` each.

    Columns: ``share k shared shared_share`` (of k) and those of ``Overlap``. Raises ValueError for scores of different shapes
    and for shares outside (0, 1].
    """
    shape = first.values.shape
    if shape != second.values.shape:
        raise ValueError(f"The scores have the shapes {shape} and {second.values.shape}: heads of two models are not the same.")
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={tuple(shares)} are not shares of the heads: give numbers above 0 and up to 1.")
    rows = []
    for share in shares:
        k = ceil(share * first.values.size)
        both = overlap(first.top(k), second.top(k), (shape[0], shape[1]))
        rows.append({"share": share, "k": k, "shared": both.shared, "shared_share": both.shared / k, **both._asdict()})
    return pd.DataFrame(rows)
