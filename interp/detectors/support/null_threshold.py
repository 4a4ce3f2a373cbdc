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
    *,
    n_tests: int = 1,
    pooled: bool = False,
) -> tuple[Float[np.ndarray, "n_layers n_heads"], float, Float[np.ndarray, "n_layers n_heads"]]:
    """The threshold of each head, their family-wise error rate, and the mean of each head over the draws.

    A head's scores are standardised over its draws and the observed score, as (score - mean) / (sd + median sd of all heads):
    a head whose null scores vary widely does not hide the others, and one whose null scores hardly vary is not detected for a
    trifle (Tusher et al. 2001). A head is detected above the value that the best head exceeds in at most a share ``fwer`` of the
    draws, counting the observed scores as one of them: with 99 draws and fwer=0.05 the fifth largest. Detected heads leave the
    null, since they may score in its draws as well, until no more are found (step-down, Westfall and Young 1993). The threshold is
    the smallest score for which a head would be detected.

    ``n_tests``: the number of such tests, of which any detects; each has its share of ``fwer``, and its own rate is returned.
    ``pooled``: one threshold for all heads, where the draws of a head do not say what this head would score without the role,
    but those of all heads what some head would. Raises ValueError for too few draws, and where ``fwer`` is no probability.
    """
    if not 0 < fwer < 1:
        raise ValueError(f"fwer={fwer:g} is not a probability: use a family-wise error rate above 0 and below 1, such as 0.05.")
    above = int(np.floor(fwer / n_tests * (len(draws) + 1) + 1e-9)) - 1
    if above < 0:
        raise ValueError(
            f"fwer={fwer:g} needs at least {int(np.ceil(n_tests / fwer)) - 1} null draws, and n_null_draws={len(draws)}: raise one of them."
        )
    scores = np.ma.masked_invalid([observed, *draws])
    deviation = scores.std(0)
    typical = max(float(np.ma.median(deviation)), ROUNDING * float(abs(scores).max())) or 1.0
    standardised = (scores if pooled else (scores - scores.mean(0)) / (deviation + typical)).filled(-np.inf)
    detected = np.zeros(observed.shape, bool)
    while True:
        critical = np.sort(np.where(detected, -np.inf, standardised[1:]).max((1, 2)))[::-1][above]
        found = standardised[0] > critical
        if (found == detected).all() or found[standardised[0] > -np.inf].all():
            break
        detected = found
    null = scores[1:]
    null_mean = null.mean(0).filled(np.nan)
    distance = _distance(critical, null.var(0).filled(np.nan), null.count(0), typical)
    threshold = np.full(observed.shape, critical) if pooled else null_mean + distance
    return threshold, (above + 1) / (len(draws) + 1), null_mean


def _distance(critical: float, variance: np.ndarray, n: np.ndarray, typical: float) -> np.ndarray:
    """The distance of a score from the mean of ``n`` draws at which it is ``critical``, standardised over the draws and itself.

    The solution d of ``critical = d n / (n + 1) / (sqrt(n variance / (n + 1) + n d^2 / (n + 1)^2) + typical)``.
    """
    left = n - critical**2
    with np.errstate(invalid="ignore", divide="ignore"):
        inner = np.sqrt(n**2 * variance * left / (n + 1) + n * (critical * typical) ** 2)
        return np.where(left > 0, critical * (n + 1) / (n * left) * (n * typical + inner), np.inf)


def prompt_digests(prompts: Iterable[Sequence[int]]) -> frozenset[str]:
    """A digest of the token ids of each prompt."""
    return frozenset(hashlib.sha256(repr([int(t) for t in text]).encode()).hexdigest()[:16] for text in prompts)
