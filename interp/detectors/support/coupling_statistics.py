"""Coincidence of marked tokens compared with chance: three statistics of arXiv 2510.13554 and their nulls.

A statistic is a mean over the marked tokens of all texts. A null permutes one of the series in every text: its marks go to
random positions, count preserved (the paper's null), or the whole series is shifted circularly. Peaks are never adjacent,
while marks at random positions may be: of windows of two tokens they hit fewer, 1 - (1-r)^2 instead of 2r for a share r of
peaks. Neither preserves what all heads share, such as a slope along the text; random groups of heads do. Expectations under
permutations are exact; quantiles and p-values (one-sided, more than chance) come from draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from interp.metrics.preplan_anchor_tokens import peaks


@dataclass(frozen=True, eq=False)
class Curves:
    """Numbers of one text by token: WAAD of the local group, FAI of the global group and of the receiver heads, next-token entropy."""

    waad: Float[np.ndarray, " pos"]
    fai: Float[np.ndarray, " pos"]
    receiver: Float[np.ndarray, " pos"]
    entropy: Float[np.ndarray, " pos"]
    waad_of_heads: Float[np.ndarray, "head pos"]
    fai_of_heads: Float[np.ndarray, "head pos"]


@dataclass(frozen=True, eq=False)
class PeakSeries:
    """Peaks of one text in WAAD and in FAI of the global group and the receiver heads, and its next-token entropy; [pos] or [draws pos]."""

    waad: Bool[np.ndarray, "... pos"]
    fai: Bool[np.ndarray, "... pos"]
    receiver: Bool[np.ndarray, "... pos"]
    entropy: Float[np.ndarray, "... pos"]


@dataclass(frozen=True)
class Statistic:
    """The mean of the series ``values`` over the tokens of ``marks``; nulls permute the series ``permuted``.

    With ``ahead``, a value counts if it holds at the token or the next one.
    """

    marks: str
    values: str
    permuted: str
    ahead: bool = False

    def series(self, text: PeakSeries) -> tuple[np.ndarray, np.ndarray]:
        """The marks, and the values counted at them."""
        values = getattr(text, self.values)
        return getattr(text, self.marks), here_or_next(values) if self.ahead else values

    def __call__(self, texts: Sequence[PeakSeries]) -> np.ndarray:
        """The statistic, or one per draw; NaN if no token is marked."""
        pairs = [self.series(text) for text in texts]
        total = sum(((marks * values).sum(-1, dtype=float) for marks, values in pairs), start=np.zeros(()))
        count = sum((marks.sum(-1) for marks, _ in pairs), start=np.zeros(()))
        return np.asarray(total / np.where(count > 0, count, np.nan))


STATISTICS = {
    "entropy_at_waad_peaks": Statistic("waad", "entropy", "waad"),
    "receiver_peaks_at_fai_peaks": Statistic("receiver", "fai", "receiver"),
    "fai_peak_at_or_after_waad_peak": Statistic("waad", "fai", "fai", ahead=True),
}


def coupling(
    curves: Sequence[Curves], sizes: tuple[int, int], *, prominence: float | None, n_null_draws: int, seed: int
) -> pd.DataFrame:
    """One row per statistic, heads and null: ``statistic heads null``, the columns of ``compare_with_null``, and
    ``waad_peak_rate fai_peak_rate``, shares of the tokens.

    Statistics of the head groups and of all heads together are compared with both permutations, those of the groups also with
    disjoint random groups of the same ``sizes`` (local, global).
    """
    rng = np.random.default_rng([seed, 2])
    marked = partial(peaks, prominence=prominence)
    grouped = [PeakSeries(marked(t.waad), marked(t.fai), marked(t.receiver), t.entropy) for t in curves]

    def regrouped(local: np.ndarray | None = None, distant: np.ndarray | None = None) -> list[PeakSeries]:
        """The texts with the peaks of other groups of heads, [n head] each, or of all heads."""
        means = [(_mean(t.waad_of_heads, local), _mean(t.fai_of_heads, distant)) for t in curves]
        return [replace(t, waad=marked(waad), fai=marked(fai)) for t, (waad, fai) in zip(grouped, means, strict=True)]

    order = rng.random((n_null_draws, len(curves[0].waad_of_heads))).argsort(1).argsort(1)
    random_groups = regrouped(order < sizes[0], order >= order.shape[1] - sizes[1])
    rows = []
    for heads, texts in (("groups", grouped), ("all", regrouped())):
        marks = {name: np.concatenate([getattr(text, name) for text in texts]) for name in ("waad", "fai")}
        rates = {f"{name}_peak_rate": float(own.mean()) for name, own in marks.items()}
        for name, statistic in STATISTICS.items():
            comparisons = {null: compare_with_permutations(statistic, texts, null, n_null_draws, rng) for null in PERMUTATIONS}
            if heads == "groups":
                comparisons["random heads"] = compare_with_null(statistic, texts, statistic(random_groups))
            rows += [{"statistic": name, "heads": heads, "null": null, **row, **rates} for null, row in comparisons.items()]
    return pd.DataFrame(rows)


def _mean(table: Float[np.ndarray, "head pos"], groups: Bool[np.ndarray, "n head"] | None = None) -> np.ndarray:
    """The mean of each group of heads, [n pos], or of all heads, [pos], ignoring NaN."""
    weights = np.ones(len(table)) if groups is None else groups.astype(float)
    count = weights @ ~np.isnan(table)
    return weights @ np.nan_to_num(table) / np.where(count > 0, count, np.nan)


def here_or_next(marks: Bool[np.ndarray, "*draws pos"]) -> Bool[np.ndarray, "*draws pos"]:
    """True at each mark and at the token before it."""
    widened = marks.copy()
    widened[..., :-1] |= marks[..., 1:]
    return widened


def permute_positions(marks: Bool[np.ndarray, " pos"], n: int, rng: np.random.Generator) -> Bool[np.ndarray, "n pos"]:
    """The same number of marks at random positions."""
    return rng.permuted(np.broadcast_to(marks, (n, len(marks))), axis=1)


def circular_shift(marks: Bool[np.ndarray, " pos"], n: int, rng: np.random.Generator) -> Bool[np.ndarray, "n pos"]:
    """The series shifted circularly by 0 to pos - 1 tokens."""
    return marks[(np.arange(len(marks)) - rng.integers(0, len(marks), (n, 1))) % len(marks)]


PERMUTATIONS: dict[str, Callable[..., np.ndarray]] = {"random positions": permute_positions, "circular shifts": circular_shift}


def expected(statistic: Statistic, texts: Sequence[PeakSeries], null: str) -> float:
    """The mean of a statistic over all permutations, in closed form; NaN if no token is marked."""
    pairs = [statistic.series(text) for text in texts]
    count = sum(marks.sum() for marks, _ in pairs)
    if not count:
        return float("nan")
    if not statistic.ahead:  # under either null every mark reaches every position equally often
        return float(sum(marks.sum() * values.mean() for marks, values in pairs) / count)
    chances = [_chance_of_one_in_two(getattr(text, statistic.permuted), null) for text in texts]
    return float(sum((marks * chance).sum() for (marks, _), chance in zip(pairs, chances, strict=True)) / count)


def _chance_of_one_in_two(marks: Bool[np.ndarray, " pos"], null: str) -> Float[np.ndarray, " pos"]:
    """Probability that a permuted mark falls on each position or the next; the last position has no next."""
    n, m = len(marks), int(marks.sum())
    chance = np.full(n, m / n)
    if null == "circular shifts":
        neighbours = int((marks & np.roll(marks, 1)).sum())
        chance[:-1] = (2 * m - neighbours) / n
    else:
        chance[:-1] = 1 - (n - m) * (n - m - 1) / (n * (n - 1))
    return chance


def compare_with_permutations(
    statistic: Statistic, texts: Sequence[PeakSeries], null: str, n_null_draws: int, rng: np.random.Generator
) -> dict[str, float]:
    """A statistic compared with ``n_null_draws`` draws of one of ``PERMUTATIONS``."""
    name, permute = statistic.permuted, PERMUTATIONS[null]
    permuted = [replace(text, **{name: permute(getattr(text, name), n_null_draws, rng)}) for text in texts]
    return compare_with_null(statistic, texts, statistic(permuted), expected(statistic, texts, null))


def compare_with_null(
    statistic: Statistic, texts: Sequence[PeakSeries], drawn: Float[np.ndarray, " n"], mean: float | None = None
) -> dict[str, float]:
    """A statistic compared with null draws of mean ``mean``, 95 % of which lie from ``null_low`` to ``null_high``."""
    observed, drawn = float(statistic(texts)), drawn[~np.isnan(drawn)]
    known = len(drawn) > 0 and not np.isnan(observed)
    low, high = np.quantile(drawn, [0.025, 0.975]) if known else (np.nan, np.nan)
    mean = (float(drawn.mean()) if known else np.nan) if mean is None else mean
    return {
        "observed": observed,
        "expected": mean,
        "null_low": float(low),
        "null_high": float(high),
        "p_value": (1 + int((drawn >= observed - 1e-12).sum())) / (1 + len(drawn)) if known else np.nan,
        "lift": observed / mean - 1 if mean else np.nan,
        "n": int(sum(statistic.series(text)[0].sum() for text in texts)),
    }
