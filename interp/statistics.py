"""Intervals and tests for mean effects over prompts, and the comparison of a head with random ones.

All functions take effects [n_heads n_examples] (one row per variant) and are deterministic for a given seed.

- Independent units: prompts, or clusters of prompts (of one template, about one name) where the prompts say which they belong to.
- Interval: percentile bootstrap over units; the mean stays that over prompts. Percentile intervals are too short for few units, so the
  levels are widened to match Student's t for normal data (the expanded percentile interval of Hesterberg 2015, The American
  Statistician 69).
- p-value: two-sided sign-flip test of the mean, exact for up to 12 units, otherwise from random flips, ``(1 + count) / (1 + flips)``.
  Null hypothesis: the effects are symmetric around 0. The prompts of a cluster flip together: the test is that of ``cluster_sums``.
- q-value: Benjamini and Hochberg 1995, over all rows.
- Control: the mean effect of a random other head, with an interval over heads and prompts resampled together.

There is no correction for selecting heads and testing them on the same prompts.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from interp._short_repr import short_repr

N_RESAMPLES = 2000
MAX_EXACT_PROMPTS = 12
MIN_FLIPS, MAX_FLIPS = 10_000, 100_000
MAX_CELLS = 1 << 22  # values held at once: 32 MiB of float64
TIE = 1e-9  # sums that differ by less, relative to the sum of magnitudes, differ only by the order of addition


@short_repr
@dataclass(frozen=True, eq=False)
class Interval:
    """Means with 95% intervals, each of shape [n_heads]; NaN where a control has no other head."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def exceeds(self, other: "Interval") -> np.ndarray:
        """Whether each interval lies farther from 0 than all of the other one, [n_heads]; False where either is NaN.

        Disjoint intervals would not be enough: a head without any effect is disjoint from others that have one.
        """
        nearest = np.maximum(self.low, -self.high)  # negative where the interval contains 0
        farthest = np.maximum(np.abs(other.low), np.abs(other.high))
        return nearest > farthest


@short_repr
@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap resamples of prompts: ``weights`` [resamples n_examples] is the share of each prompt in each of them (rows sum to 1), and
    ``n_clusters`` the number of clusters that were drawn; None where the prompts themselves were."""

    weights: np.ndarray
    n_clusters: int | None = None

    @property
    def n_units(self) -> int:
        """The number of independent units: clusters or prompts."""
        return self.n_clusters or self.weights.shape[1]

    @property
    def sizes(self) -> dict[str, int]:
        """What intervals rest on, as columns of a table: ``n`` prompts, and ``n_clusters`` if there are clusters."""
        clusters = {"n_clusters": self.n_clusters} if self.n_clusters else {}
        return {"n": self.weights.shape[1], **clusters}


def resample_prompts(
    n_examples: int, seed: int, clusters: Sequence[str] | None = None, resamples: int = N_RESAMPLES
) -> Resamples:
    """Prompts drawn with replacement, or whole clusters of them; ``clusters`` are those of a task or of its record.

    As many clusters are drawn as there are, so that a resample of clusters of different sizes has more or fewer prompts. Raises
    ValueError for fewer than 2 prompts or clusters.
    """
    if n_examples < 2:
        raise ValueError(f"An interval over prompts needs at least 2 prompts, got {n_examples}: use more prompts.")
    units = independent_units(n_examples, clusters)
    n_units = int(units.max()) + 1
    if n_units < 2:
        raise ValueError(
            f"An interval over clusters needs at least 2 clusters, and all {n_examples} prompts are of one: add prompts of others."
        )
    drawn = np.take(_draws(np.random.default_rng([seed, 1]), n_units, resamples), units, axis=1)
    return Resamples(drawn / drawn.sum(1, keepdims=True), None if clusters is None else n_units)


def independent_units(n_examples: int, clusters: Sequence[str] | None = None) -> np.ndarray:
    """For each prompt the number of its cluster, from 0, [n_examples]; without ``clusters`` each prompt is a unit of its own."""
    if clusters is None:
        return np.arange(n_examples)
    if len(clusters) != n_examples:
        raise ValueError(
            f"There are clusters for {len(clusters)} prompts and values for {n_examples}: give those of the same prompts."
        )
    return np.unique(clusters, return_inverse=True)[1]


def cluster_sums(effects: np.ndarray, clusters: Sequence[str] | None) -> np.ndarray:
    """The sum of each row over the prompts of each cluster, [n_heads n_clusters]; without ``clusters`` the effects themselves."""
    if clusters is None:
        return effects
    units = independent_units(effects.shape[1], clusters)
    return effects @ (units[:, None] == np.arange(units.max() + 1))


def draw_weights(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """The share of each of ``n`` items among ``n`` draws with replacement, [resamples n]."""
    return _draws(rng, n, resamples) / n


def _draws(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """How often each of ``n`` items is among ``n`` draws with replacement, [resamples n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def mean_interval(effects: np.ndarray, resamples: Resamples) -> Interval:
    """The mean of each row over prompts with its 95% bootstrap interval."""
    low, high, weights = np.empty(len(effects)), np.empty(len(effects)), resamples.weights
    levels = expanded_levels(resamples.n_units)
    for rows in _blocks(len(effects), len(weights)):
        low[rows], high[rows] = np.quantile(effects[rows] @ weights.T, levels, axis=1)
    return Interval(effects.mean(1), low, high)


def expanded_levels(n_units: int, coverage: float = 0.95) -> tuple[float, float]:
    """Quantile levels whose percentile interval is as wide as Student's t interval for normal data of this size."""
    from scipy.stats import t

    tail = (1 - coverage) / 2
    wide = NormalDist().cdf(np.sqrt(n_units / (n_units - 1)) * float(t.ppf(tail, n_units - 1)))
    return wide, 1 - wide


def sign_flip_p_value(effects: np.ndarray, seed: int = 0, flips: int | None = None) -> np.ndarray:
    """Two-sided p-value of each row's mean, [n_heads], in (0, 1]: the share of sign flips whose mean is at least as far from 0.

    ``flips`` (used above 12 prompts) defaults to 10,000, or up to 100,000 for so many heads that a single one could not reach q = 0.05.
    """
    n_heads, n_examples = effects.shape
    if n_examples <= MAX_EXACT_PROMPTS:
        return _count_extreme(effects, [_all_signs(n_examples)]) / 2 ** (n_examples - 1)
    flips = flips or _default_flips(n_heads)
    rng = np.random.default_rng([seed, 2])
    sizes = [len(range(*part.indices(flips))) for part in _blocks(flips, max(n_heads, n_examples))]
    signs = (2.0 * rng.integers(0, 2, size=(size, n_examples)) - 1 for size in sizes)
    return (1 + _count_extreme(effects, signs)) / (1 + flips)


def least_p_value(n_heads: int, n_units: int) -> float:
    """The smallest p-value that ``sign_flip_p_value`` can give to one of these heads, from this many prompts or clusters."""
    return 2.0 ** (1 - n_units) if n_units <= MAX_EXACT_PROMPTS else 1 / (1 + _default_flips(n_heads))


def _default_flips(n_heads: int) -> int:
    return int(np.clip(20 * n_heads, MIN_FLIPS, MAX_FLIPS))


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """q-value of each p-value, in (0, 1]: the smallest false-discovery rate at which it is rejected.

    ``scipy.stats.false_discovery_control`` differs in the last bit: ``p * (m / i)``, where stored tables hold ``(p * m) / i``.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    q_values = np.empty(len(p_values))
    q_values[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return q_values


def random_head_control(effects: np.ndarray, groups: Sequence[Hashable], resamples: Resamples, seed: int = 0) -> Interval:
    """For each row, the mean effect of the other rows of its group, with a 95% interval over heads and prompts.

    ``groups`` holds the group of each row: its layer for a layer-matched control, one value for a control over the model. Each resample
    weights the prompts as for the heads' own intervals, draws as many rows from the group (with replacement) as it has, and excludes the
    row itself. A row alone in its group has no control (NaN).
    """
    rng, weights = np.random.default_rng([seed, 3]), resamples.weights
    mean, low, high = (np.full(len(effects), np.nan) for _ in range(3))
    keys = np.array([list(dict.fromkeys(groups)).index(group) for group in groups])
    for key in np.unique(keys):
        rows = np.flatnonzero(keys == key)
        if len(rows) < 2:
            continue
        own = effects[rows].mean(1)
        mean[rows] = (own.sum() - own) / (len(rows) - 1)
        draws = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=len(weights))
        resampled = weights @ effects[rows].T
        total = (draws * resampled).sum(1)
        for part in _blocks(len(rows), len(weights)):
            others = len(rows) - draws[:, part]
            with np.errstate(invalid="ignore"):  # 0/0 where a resample drew only the row itself; nanquantile skips it
                control = (total[:, None] - draws[:, part] * resampled[:, part]) / others
            low[rows[part]], high[rows[part]] = np.nanquantile(control, (0.025, 0.975), axis=0)
    return Interval(mean, low, high)


def _all_signs(n_examples: int) -> np.ndarray:
    """All sign patterns with a first sign of +, [2**(n-1) n]; the others are their negatives and give the same magnitudes."""
    numbers = np.arange(2 ** (n_examples - 1))[:, None] >> np.arange(n_examples) & 1
    return 1.0 - 2.0 * numbers[:, ::-1]


def _count_extreme(effects: np.ndarray, signs: Iterator[np.ndarray] | list[np.ndarray]) -> np.ndarray:
    """The number of sign patterns under which each row's sum is at least as far from 0 as observed, [n_heads]."""
    observed = np.abs(effects.sum(1)) - TIE * np.abs(effects).sum(1)
    return np.sum([(np.abs(block @ effects.T) >= observed).sum(0) for block in signs], axis=0)


def _blocks(n: int, width: int) -> list[slice]:
    """Slices that cover ``n`` rows of ``width`` values, with at most MAX_CELLS values each."""
    step = max(1, MAX_CELLS // max(1, width))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def estimate_agreement(estimated: np.ndarray, exact: np.ndarray, k: int) -> dict[str, Any]:
    """Agreement of ``n`` estimated effects with the exact ones, both of shape [n].

    ``spearman`` is the rank correlation (None where one side is constant or n < 3); ``top_overlap`` the share of the ``k`` (at most n)
    of largest exact magnitude that are also among the ``k`` of largest estimated magnitude; ``same_sign`` the share of nonzero exact
    effects whose estimate has the same sign (None where all are 0).
    """
    from scipy.stats import rankdata

    ranked = len(exact) >= 3 and np.ptp(estimated) > 0 and np.ptp(exact) > 0
    spearman = float(np.corrcoef(rankdata(estimated), rankdata(exact))[0, 1]) if ranked else None
    k = min(k, len(exact))
    top = [set(np.argsort(-np.abs(side), kind="stable")[:k].tolist()) for side in (estimated, exact)]
    nonzero = exact != 0
    same = float((np.sign(estimated) == np.sign(exact))[nonzero].mean()) if nonzero.any() else None
    return {"n": len(exact), "spearman": spearman, "k": k, "top_overlap": len(top[0] & top[1]) / k, "same_sign": same}
