"""The sets of heads that a confirmation ablates: the detected heads and their controls.

For every k the ``detected`` heads are the k with the highest scores. The controls are k ``random`` heads, k random heads of the same layers
(``layer_matched``), and the k with the lowest scores (``bottom``, ties in random order). Random heads are drawn from those that were not
detected: neither above the threshold nor among the highest ``max(ks)``. Each draw is one order of these heads, which gives its sets for
every k, position and task, so that a draw is a curve. Where a layer runs out of other heads, the nearest layers follow.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from interp.detectors.support.detection import Detection
from interp.heads import Head

GROUPS = ("detected", "random", "layer_matched", "bottom")
DEFAULT_KS = (1, 2, 5, 10, 20, 50, 100)
MIN_DRAWS = 5
NO_PAIRS = ("corrupted",)
"""What the ablation of a confirmation must not need: its tasks may have no corrupted prompts."""


class HeadSet(NamedTuple):
    """Heads that are ablated together; detected heads in descending order of score."""

    group: str
    k: int
    draw: int
    heads: tuple[Head, ...]


CLEAN = HeadSet("detected", 0, 0, ())


def draw_sets(detection: Detection, ks: Sequence[int], n_draws: int, seed: int) -> tuple[list[HeadSet], dict[int, int]]:
    """The sets of heads to ablate, and for each k the number of heads of a layer-matched set that come from another layer."""
    top = detection.top(max(ks))
    pool = control_pool(detection, top)
    rngs = [np.random.default_rng([seed, 5, draw]) for draw in range(n_draws + 1)]
    orders = [[pool[i] for i in rng.permutation(len(pool))] for rng in rngs[1:]]
    lowest = _lowest(detection, rngs[0])
    sets: list[HeadSet] = []
    unmatched: dict[int, int] = {}
    for k in ks:
        sets += [HeadSet("detected", k, 0, tuple(top[:k])), HeadSet("bottom", k, 0, tuple(lowest[:k]))]
        for draw, order in enumerate(orders):
            matched, unmatched[k] = _layer_matched(top[:k], order)
            sets += [HeadSet("random", k, draw, tuple(order[:k])), HeadSet("layer_matched", k, draw, matched)]
    return sorted(sets, key=lambda s: (GROUPS.index(s.group), s.k, s.draw)), unmatched


def unmatched_sentence(unmatched: Mapping[str, int]) -> str:
    """How many layer-matched heads of ``draw_sets`` come from another layer, in words; empty where none does."""
    short = "; ".join(f"for k = {k}, {n} of {k}" for k, n in unmatched.items())
    return f"Layer-matched heads from another layer, because their own has too few others: {short}." if short else ""


def choose_ks(detection: Detection, ks: Sequence[int] | None) -> list[int]:
    """The numbers of heads to ablate, ascending; by default those of ``DEFAULT_KS`` for which twice as many controls remain.

    Raises ValueError for a k with fewer scored heads, or fewer controls, than k.
    """
    n_scored = len(detection.top(detection.scores.values.size))
    n_controls = {k: len(control_pool(detection, detection.top(k))) for k in {*(ks or ()), *DEFAULT_KS} if 0 < k <= n_scored}
    chosen = sorted({*ks}) if ks else [k for k in DEFAULT_KS if 2 * k <= n_controls.get(k, 0)]
    if not chosen:
        raise ValueError(
            f"{len(detection.detected)} of {detection.scores.values.size} heads are {detection.role} heads, which leaves too few controls: "
            f"nothing can be confirmed."
        )
    wrong = next((k for k in chosen if not 0 < k <= n_controls.get(k, 0)), None)
    if wrong is None:
        return chosen
    if wrong < 1:
        raise ValueError(f"k={wrong} is not a number of heads to ablate: ks must be at least 1.")
    raise ValueError(
        f"k={wrong} needs {wrong} heads with a score and as many controls: {n_scored} heads of {detection.record.model} have a score, "
        f"and {n_controls.get(wrong, 0)} heads remain as controls. Use smaller ks."
    )


def control_pool(detection: Detection, top: Sequence[Head]) -> list[Head]:
    """The heads that controls are drawn from, in order: all but those above the threshold and ``top``."""
    excluded = {*top, *detection.detected}
    return [head for index in np.ndindex(detection.scores.values.shape) if (head := Head(*index)) not in excluded]


def _lowest(detection: Detection, rng: np.random.Generator) -> list[Head]:
    """All heads with a score, lowest first, ties in random order."""
    values = detection.scores.values
    heads = [Head(*index) for index in np.argwhere(~np.isnan(values)).tolist()]
    shuffled = [heads[i] for i in rng.permutation(len(heads))]
    return sorted(shuffled, key=lambda head: values[head])


def _layer_matched(heads: Sequence[Head], order: Sequence[Head]) -> tuple[tuple[Head, ...], int]:
    """The first heads of ``order`` from the layers of ``heads`` (where a layer runs out, from the nearest), and the number from others."""
    free, unmatched, chosen = list(order), [], []
    for head in heads:
        match = next((other for other in free if other.layer == head.layer), None)
        if match is None:
            unmatched.append(head)
        else:
            chosen.append(match)
            free.remove(match)
    for head in unmatched:
        chosen.append(min(free, key=lambda other: abs(other.layer - head.layer)))
        free.remove(chosen[-1])
    return tuple(chosen), len(unmatched)
