"""Thresholds from chance: what the best head of this model scores where its score can mean nothing.

A *draw* is the same number made again with something replaced that a model without the role might as well have: a stranger's queries,
another key, the competing passage, a rotation. What that is differs by role and stands in each detector's file; it must leave untrained
models as they are, which is tested. If no head plays the role, the true score is one more draw, so that the chance that a head passes
the largest of ``n`` draws is 1 / (n + 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float


def null_threshold(
    draws: Float[np.ndarray, "n_draws n_layers n_heads"], rate: float = 0.05
) -> tuple[float, float, Float[np.ndarray, "n_layers n_heads"]]:
    """The threshold, the rate that it really has, and the mean of each head over the draws.

    The threshold is the score that the best head passes in a share ``rate`` of the draws at most, counting the true scores as one of
    them: with 99 draws and rate 0.05, the fifth largest. Raises ValueError when there are too few draws for the rate.
    """
    best = np.sort(np.nanmax(draws, axis=(1, 2)))[::-1]
    above = int(np.floor(rate * (len(best) + 1) + 1e-9)) - 1
    if above < 0:
        raise ValueError(
            f"A rate of {rate:g} needs {int(np.ceil(1 / rate)) - 1} draws of chance, and {len(best)} were made: make more or allow more."
        )
    mean = np.ma.masked_invalid(draws).mean(axis=0)
    return float(best[above]), (above + 1) / (len(best) + 1), np.ma.filled(mean, np.nan)


def prompt_digests(prompts: Iterable[Sequence[int]]) -> frozenset[str]:
    """A digest of each text's token ids."""
    return frozenset(hashlib.sha256(repr([int(t) for t in text]).encode()).hexdigest()[:16] for text in prompts)
