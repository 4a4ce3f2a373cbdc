"""Thresholds from chance: what the best head of this model scores on targets that mean nothing.

Every row of a role has targets among the keys it sees. A shuffle gives each row another row's kind of target, in the same way in every
prompt; the largest score of any head is kept. If no head of a model plays the role, the right targets are one more such draw, so the
chance that a head passes the largest of ``n`` shuffles is 1 / (n + 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float


def threshold_of(
    shuffled: Float[np.ndarray, "n_shuffles n_layers n_heads"], rate: float = 0.05
) -> tuple[float, float, Float[np.ndarray, "n_layers n_heads"]]:
    """The threshold, the rate that it really has, and the mean of each head over the shuffles.

    The threshold is the score that the best head passes in a share ``rate`` of the shuffles at most, counting the right targets as one
    of them: with 99 shuffles and rate 0.05, the fifth largest. Raises ValueError when there are too few shuffles for the rate.
    """
    best = np.sort(np.nanmax(shuffled, axis=(1, 2)))[::-1]
    above = int(np.floor(rate * (len(best) + 1) + 1e-9)) - 1
    if above < 0:
        raise ValueError(
            f"A rate of {rate:g} needs {int(np.ceil(1 / rate)) - 1} shuffles, and {len(best)} were made: make more or allow more."
        )
    mean = np.ma.masked_invalid(shuffled).mean(axis=0)
    return float(best[above]), (above + 1) / (len(best) + 1), np.ma.filled(mean, np.nan)


def digests(prompts: Iterable[Sequence[int]]) -> frozenset[str]:
    """A digest of each text's token ids."""
    return frozenset(hashlib.sha256(repr([int(t) for t in text]).encode()).hexdigest()[:16] for text in prompts)
