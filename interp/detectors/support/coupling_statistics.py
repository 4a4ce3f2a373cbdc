"""Whether marked tokens coincide more than chance would have it: three statistics of arXiv 2510.13554, and what they are compared with.

A statistic is a mean over the marked tokens of all texts. Chance moves one of the series in every text: its marks to random places, count
kept (the paper's way), or the whole series round in a circle. Peaks are never neighbours, and marks at random places may be: of a window
of two tokens they hit fewer, 1 - (1-r)^2 instead of 2r with a share r of peaks. Neither move keeps what all heads share, such as a
slope along the text; random groups of heads do. Expectations over moves are exact; intervals and p-values (one-sided, more than
chance) come from draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from interp.metrics.waad_fai import peaks

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Curves:
    """What is read from one text, token by token: WAAD of the local group, FAI of the global and of the receiver heads, next-token
    entropy, each [pos], and WAAD and FAI of every head, [head pos]."""

    waad: Float[np.ndarray, " pos"]
    fai: Float[np.ndarray, " pos"]
    receiver: Float[np.ndarray, " pos"]
    entropy: Float[np.ndarray, " pos"]
    waad_of_heads: Float[np.ndarray, "head pos"]
    fai_of_heads: Float[np.ndarray, "head pos"]


@dataclass(frozen=True, eq=False)
class PeakSeries:
    """One text: peaks of WAAD, of FAI in the global and in the receiver heads, and next-token entropy; each [pos], or [draws pos]."""

    waad: Bool[np.ndarray, "... pos"]
    fai: Bool[np.ndarray, "... pos"]
    receiver: Bool[np.ndarray, "... pos"]
    entropy: Float[np.ndarray, "... pos"]


@dataclass(frozen=True)
class Statistic:
    """The mean of ``values`` over the tokens of ``marks``, two of the ``PeakSeries``; chance moves ``moved``. ``ahead``: a value counts if
    it holds here or at the next token."""

    marks: str
    values: str
    moved: str
    ahead: bool = False

    def parts(self, text: PeakSeries) -> tuple[np.ndarray, np.ndarray]:
        """What is marked, and the values there."""
        values = getattr(text, self.values)
        return getattr(text, self.marks), here_or_next(values) if self.ahead else values

    def __call__(self, texts: Sequence[PeakSeries]) -> np.ndarray:
        """The statistic, or one for each draw; NaN where nothing is marked."""
        pairs = [self.parts(text) for text in texts]
        total = sum(((marks * values).sum(-1, dtype=float) for marks, values in pairs), start=np.zeros(()))
        count = sum((marks.sum(-1) for marks, _ in pairs), start=np.zeros(()))
        return np.asarray(total / np.where(count > 0, count, np.nan))


STATISTICS = {
    "entropy_at_waad_peaks": Statistic("waad", "entropy", "waad"),
    "receiver_peaks_at_fai_peaks": Statistic("receiver", "fai", "receiver"),
    "fai_peak_at_or_after_waad_peak": Statistic("waad", "fai", "fai", ahead=True),
}


COLUMNS = (
    "statistic",
    "heads",
    "against",
    "observed",
    "expected",
    "low",
    "high",
    "p_value",
    "lift",
    "n",
    "waad_peak_rate",
    "fai_peak_rate",
)


def coupling(
    curves: Sequence[Curves],
    sizes: tuple[int, int],
    *,
    prominence: float | None = None,
    n_null_draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every statistic, of the groups of heads and of all heads alike, beside both moves, and of the groups beside as many random groups
    of equal ``sizes`` (local, global), which have no head in common.

    One row each, with ``COLUMNS``; the peak rates are shares of the tokens.
    """
    import pandas as pd

    rng = np.random.default_rng([seed, 2])
    grouped = [
        PeakSeries(peaks(t.waad, prominence), peaks(t.fai, prominence), peaks(t.receiver, prominence), t.entropy)
        for t in curves
    ]
    everyone = [
        replace(text, waad=peaks(_mean(t.waad_of_heads), prominence), fai=peaks(_mean(t.fai_of_heads), prominence))
        for text, t in zip(grouped, curves, strict=True)
    ]
    anyone = _random_groups(grouped, curves, sizes, prominence, n_null_draws, rng)
    rows = []
    for heads, texts in (("groups", grouped), ("all", everyone)):
        rates = {f"{name}_peak_rate": _rate([getattr(text, name) for text in texts]) for name in ("waad", "fai")}
        for name in STATISTICS:
            found = [beside_moves(name, texts, against, n_null_draws, rng) for against in PERMUTATIONS]
            if heads == "groups":
                found.append(beside(name, texts, STATISTICS[name](anyone)) | {"against": "random heads"})
            rows += [{"heads": heads, **row, **rates} for row in found]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _random_groups(
    texts: Sequence[PeakSeries],
    curves: Sequence[Curves],
    sizes: tuple[int, int],
    prominence: float | None,
    n: int,
    rng: np.random.Generator,
) -> list[PeakSeries]:
    """The texts with the peaks of ``n`` pairs of random groups of heads."""
    order = rng.random((n, len(curves[0].waad_of_heads))).argsort(1).argsort(1)
    near, far = order < sizes[0], order >= order.shape[1] - sizes[1]
    return [
        replace(text, waad=peaks(_mean(t.waad_of_heads, near), prominence), fai=peaks(_mean(t.fai_of_heads, far), prominence))
        for text, t in zip(texts, curves, strict=True)
    ]


def _mean(table: Float[np.ndarray, "head pos"], groups: Bool[np.ndarray, "n head"] | None = None) -> np.ndarray:
    """The mean of each group of heads, [n pos], or of all heads, [pos], over those that have a number."""
    weights = np.ones(len(table)) if groups is None else groups.astype(float)
    count = weights @ ~np.isnan(table)
    return weights @ np.nan_to_num(table) / np.where(count > 0, count, np.nan)


def _rate(marks: Sequence[Bool[np.ndarray, " _"]]) -> float:
    return float(np.concatenate(marks).mean())


def here_or_next(marks: Bool[np.ndarray, "*draws pos"]) -> Bool[np.ndarray, "*draws pos"]:
    """True at each mark and at the token before it."""
    found = marks.copy()
    found[..., :-1] |= marks[..., 1:]
    return found


def to_random_places(marks: Bool[np.ndarray, " pos"], n: int, rng: np.random.Generator) -> Bool[np.ndarray, "n pos"]:
    """The marks at places drawn at random, as many of them."""
    return rng.permuted(np.broadcast_to(marks, (n, len(marks))), axis=1)


def round_in_a_circle(marks: Bool[np.ndarray, " pos"], n: int, rng: np.random.Generator) -> Bool[np.ndarray, "n pos"]:
    """The whole series moved on by 0 to pos - 1 tokens, what leaves at the end coming in at the start."""
    return marks[(np.arange(len(marks)) - rng.integers(0, len(marks), (n, 1))) % len(marks)]


PERMUTATIONS: dict[str, Callable[..., np.ndarray]] = {"random places": to_random_places, "circular shifts": round_in_a_circle}


def expected(statistic: Statistic, texts: Sequence[PeakSeries], against: str) -> float:
    """The mean of a statistic over all moves, in closed form; NaN where nothing is marked."""
    pairs = [statistic.parts(text) for text in texts]
    count = sum(marks.sum() for marks, _ in pairs)
    if not count:
        return float("nan")
    if not statistic.ahead:  # either move brings every mark to every place equally often
        return float(sum(marks.sum() * values.mean() for marks, values in pairs) / count)
    chances = [_chance_of_one_in_two(getattr(text, statistic.moved), against) for text in texts]
    return float(sum((marks * chance).sum() for (marks, _), chance in zip(pairs, chances, strict=True)) / count)


def _chance_of_one_in_two(marks: Bool[np.ndarray, " pos"], against: str) -> Float[np.ndarray, " pos"]:
    """How likely a moved mark comes to each place or the next; at the last place there is no next."""
    n, m = len(marks), int(marks.sum())
    chance = np.full(n, m / n)
    if against == "circular shifts":
        neighbours = int((marks & np.roll(marks, 1)).sum())
        chance[:-1] = (2 * m - neighbours) / n
    else:
        chance[:-1] = 1 - (n - m) * (n - m - 1) / (n * (n - 1))
    return chance


def beside_moves(
    name: str, texts: Sequence[PeakSeries], against: str, n_null_draws: int, rng: np.random.Generator
) -> dict[str, Any]:
    """A statistic beside ``n_null_draws`` draws of one of ``PERMUTATIONS``."""
    statistic = STATISTICS[name]
    moved = [
        replace(text, **{statistic.moved: PERMUTATIONS[against](getattr(text, statistic.moved), n_null_draws, rng)})
        for text in texts
    ]
    return beside(name, texts, statistic(moved), expected(statistic, texts, against)) | {"against": against}


def beside(name: str, texts: Sequence[PeakSeries], drawn: Float[np.ndarray, " n"], mean: float | None = None) -> dict[str, Any]:
    """A statistic beside others of its kind, whose mean is ``mean``; 95 % of them lie from ``low`` to ``high``."""
    statistic = STATISTICS[name]
    observed, drawn = float(statistic(texts)), drawn[~np.isnan(drawn)]
    known = len(drawn) > 0 and not np.isnan(observed)
    low, high = np.quantile(drawn, [0.025, 0.975]) if known else (np.nan, np.nan)
    mean = (float(drawn.mean()) if known else np.nan) if mean is None else mean
    return {
        "statistic": name,
        "observed": observed,
        "expected": mean,
        "low": float(low),
        "high": float(high),
        "p_value": (1 + int((drawn >= observed - 1e-12).sum())) / (1 + len(drawn)) if known else np.nan,
        "lift": observed / mean - 1 if mean else np.nan,
        "n": int(sum(statistic.parts(text)[0].sum() for text in texts)),
    }
