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


def null_threshold(
    draws: Float[np.ndarray, "n_null_draws n_layers n_heads"], fwer: float = 0.05
) -> tuple[float, float, Float[np.ndarray, "n_layers n_heads"]]:
    """The threshold, its actual family-wise error rate, and the mean of each head over the draws.

    The best head exceeds the threshold in at most a share ``fwer`` of the draws, counting the observed scores as one of them:
    with 99 draws and fwer=0.05 it is the fifth largest. Raises ValueError for too few draws.
    """
    best = np.sort(np.nanmax(draws, axis=(1, 2)))[::-1]
    above = int(np.floor(fwer * (len(best) + 1) + 1e-9)) - 1
    if above < 0:
        raise ValueError(
            f"fwer={fwer:g} needs at least {int(np.ceil(1 / fwer)) - 1} null draws, and n_null_draws={len(best)}: raise one of them."
        )
    mean = np.ma.masked_invalid(draws).mean(axis=0)
    return float(best[above]), (above + 1) / (len(best) + 1), np.ma.filled(mean, np.nan)


def prompt_digests(prompts: Iterable[Sequence[int]]) -> frozenset[str]:
    """A digest of the token ids of each prompt."""
    return frozenset(hashlib.sha256(repr([int(t) for t in text]).encode()).hexdigest()[:16] for text in prompts)
