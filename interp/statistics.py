"""How sure a mean over prompts is, and whether a head differs from a random one.

All functions take effects [n_heads n_examples] (rows may be any variants) and are the same for the same seed.

- Interval: percentile bootstrap over prompts. Percentile intervals are too short for few prompts, so the levels are widened until
  they match Student's t for normal data (the expanded percentile interval of Hesterberg 2015, The American Statistician 69).
- p-value: two-sided sign-flip test of the mean; exact for up to 12 prompts, else from random flips, ``(1 + count) / (1 + flips)``.
  Its hypothesis: the effects are symmetric around 0.
- q-value: Benjamini and Hochberg 1995, over all rows.
- Control: what a random other head does on average, with an interval over heads and prompts drawn together.

It does not correct for choosing heads and testing them on the same prompts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from interp._short_repr import short_repr

N_RESAMPLES = 2000
MAX_EXACT_PROMPTS = 12
MIN_FLIPS, MAX_FLIPS = 10_000, 100_000
MAX_CELLS = 1 << 22  # numbers held at once: 32 MiB of float64
TIE = 1e-9  # sums that differ by less, relative to the sum of magnitudes, are the same number in another order


@short_repr
@dataclass(frozen=True, eq=False)
class Interval:
    """A mean with its 95% interval; each of shape [n_heads], NaN where there is nothing to compare with."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def exceeds(self, other: Interval) -> np.ndarray:
        """Whether every number of this interval is farther from 0 than every number of the other, [n_heads]; False where either is NaN.

        Then the two share no number. The reverse would not do: a head without any effect is clear of the others where they have one.
        """
        nearest = np.maximum(self.low, -self.high)  # negative where the interval holds 0
        farthest = np.maximum(np.abs(other.low), np.abs(other.high))
        return nearest > farthest


def bootstrap_weights(n_examples: int, seed: int, resamples: int = N_RESAMPLES) -> np.ndarray:
    """Weights of a bootstrap over prompts, [resamples n_examples]; each row sums to 1. Raises ValueError for fewer than 2 prompts."""
    if n_examples < 2:
        raise ValueError(f"An interval over prompts needs at least 2 prompts, got {n_examples}: use more prompts.")
    return (
        np.random.default_rng([seed, 1]).multinomial(n_examples, np.full(n_examples, 1 / n_examples), size=resamples)
        / n_examples
    )


def mean_interval(effects: np.ndarray, weights: np.ndarray) -> Interval:
    """Mean over prompts of each row and its 95% bootstrap interval; ``weights`` from ``bootstrap_weights``."""
    low, high = np.empty(len(effects)), np.empty(len(effects))
    levels = expanded_levels(effects.shape[1])
    for rows in _blocks(len(effects), len(weights)):
        low[rows], high[rows] = np.quantile(effects[rows] @ weights.T, levels, axis=1)
    return Interval(effects.mean(1), low, high)


def expanded_levels(n_examples: int, coverage: float = 0.95) -> tuple[float, float]:
    """Quantile levels whose percentile interval is as wide as Student's t interval for normal data of this size."""
    from scipy.stats import t

    tail = (1 - coverage) / 2
    wide = NormalDist().cdf(np.sqrt(n_examples / (n_examples - 1)) * float(t.ppf(tail, n_examples - 1)))
    return wide, 1 - wide


def sign_flip_p_value(effects: np.ndarray, seed: int = 0, flips: int | None = None) -> np.ndarray:
    """Two-sided p-value of each row's mean, [n_heads], in (0, 1]: how often random signs give a mean as far from 0.

    ``flips`` (only used above 12 prompts) is by default 10,000, or more where one head among many could not reach q = 0.05 with
    that, up to 100,000.
    """
    n_heads, n_examples = effects.shape
    if n_examples <= MAX_EXACT_PROMPTS:
        return _count_as_far(effects, [_all_signs(n_examples)]) / 2 ** (n_examples - 1)
    flips = flips or int(np.clip(20 * n_heads, MIN_FLIPS, MAX_FLIPS))
    rng = np.random.default_rng([seed, 2])
    sizes = [len(range(*part.indices(flips))) for part in _blocks(flips, max(n_heads, n_examples))]
    signs = (2.0 * rng.integers(0, 2, size=(size, n_examples)) - 1 for size in sizes)
    return (1 + _count_as_far(effects, signs)) / (1 + flips)


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """q-value of each p-value: the smallest false-discovery rate at which it is still reported; same shape, in (0, 1]."""
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    q_values = np.empty(len(p_values))
    q_values[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return q_values


def random_head_control(effects: np.ndarray, groups: Sequence[Hashable], weights: np.ndarray, seed: int = 0) -> Interval:
    """For each row: the mean effect of the other rows of its group, with a 95% interval over heads and prompts.

    ``groups`` names the group of each row: its layer for a layer-matched control, one name for all for a control over the model. In
    each resample the prompts are weighted as for the heads' own intervals, as many rows are drawn from the group (with
    replacement) as it has, and the draws of the row itself are put aside. A row alone in its group has no control (NaN).
    """
    rng = np.random.default_rng([seed, 3])
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
            with np.errstate(
                invalid="ignore"
            ):  # 0/0 where a resample drew the row itself every time: that resample says nothing
                control = (total[:, None] - draws[:, part] * resampled[:, part]) / others
            low[rows[part]], high[rows[part]] = np.nanquantile(control, (0.025, 0.975), axis=0)
    return Interval(mean, low, high)


def _all_signs(n_examples: int) -> np.ndarray:
    """All sign patterns whose first sign is +, [2**(n-1) n]; the others are their mirror images and give the same magnitude."""
    numbers = np.arange(2 ** (n_examples - 1))[:, None] >> np.arange(n_examples) & 1
    return 1.0 - 2.0 * numbers[:, ::-1]


def _count_as_far(effects: np.ndarray, signs: Iterator[np.ndarray] | list[np.ndarray]) -> np.ndarray:
    """How many sign patterns bring each row's sum at least as far from 0 as it is, [n_heads]."""
    bar = np.abs(effects.sum(1)) - TIE * np.abs(effects).sum(1)
    return np.sum([(np.abs(block @ effects.T) >= bar).sum(0) for block in signs], axis=0)


def _blocks(n: int, width: int) -> list[slice]:
    """Slices that cover ``n`` rows of ``width`` numbers, a bounded number of cells each."""
    step = max(1, MAX_CELLS // max(1, width))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
