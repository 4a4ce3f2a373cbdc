"""Detection thresholds calibrated on null draws.

A null draw is the same score computed again with the signal of the role destroyed: a head's queries replaced by another
group's, the first token's key redrawn, the gold passage swapped with the competing one, a random rotation inside the OV
circuit. Each detector's file states its null, which must leave the scores of untrained models unchanged in distribution;
tests check this. Without any head that plays the role, the observed scores are one more null draw, so some head exceeds the
largest of ``n`` draws with probability 1 / (n + 1).
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

ROUNDING = 1e-6
"""Differences below this share of the largest score are rounding errors."""


def null_threshold(
    observed: Float[np.ndarray, "n_layers n_heads"],
    draws: Float[np.ndarray, "n_null_draws n_layers n_heads"],
    fwer: float = 0.05,
) -> tuple[Float[np.ndarray, "n_layers n_heads"], float, Float[np.ndarray, "n_layers n_heads"]]:
    """The threshold of each head, their family-wise error rate, and the mean of each head over the draws.

    A head's scores are standardised over its draws and the observed score, as (score - mean) / (sd + median sd of all heads):
    a head whose null scores vary widely does not hide the others, and one whose null scores hardly vary is not detected for a
    trifle (Tusher et al. 2001). The thresholds are the same number in these units, which the best head exceeds in at most a
    share ``fwer`` of the draws, counting the observed scores as one of them: with 99 draws and fwer=0.05 the fifth largest.
    Detected heads leave the null, since they may score in its draws as well, until no more are found (step-down, Westfall and
    Young 1993). Raises ValueError for too few draws.
    """
    above = int(np.floor(fwer * (len(draws) + 1) + 1e-9)) - 1
    if above < 0:
        raise ValueError(
            f"fwer={fwer:g} needs at least {int(np.ceil(1 / fwer)) - 1} null draws, and n_null_draws={len(draws)}: raise one of them."
        )
    scores = np.ma.masked_invalid([observed, *draws])
    mean, deviation = scores.mean(0), scores.std(0)
    unit = deviation + (max(float(np.ma.median(deviation)), ROUNDING * float(abs(scores).max())) or 1.0)
    standardised = ((scores - mean) / unit).filled(-np.inf)
    detected = np.zeros(observed.shape, bool)
    while True:
        best = np.sort(np.where(detected, -np.inf, standardised[1:]).max((1, 2)))[::-1]
        found = standardised[0] > best[above]
        if found.all() or (found == detected).all():
            break
        detected = found
    threshold, null_mean = mean + best[above] * unit, scores[1:].mean(0)
    return threshold.filled(np.nan), (above + 1) / (len(draws) + 1), null_mean.filled(np.nan)


def prompt_digests(prompts: Iterable[Sequence[int]]) -> frozenset[str]:
    """A digest of the token ids of each prompt."""
    return frozenset(hashlib.sha256(repr([int(t) for t in text]).encode()).hexdigest()[:16] for text in prompts)
