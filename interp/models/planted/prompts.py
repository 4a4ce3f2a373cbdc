"""Prompts for planted models, in pairs of clean and corrupted; ``interp.tasks.Example(*prompt)`` makes one of each."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from interp.models.planted.vocabulary import BOS, DELIMITER, END, MARK, QUERY, Vocabulary


class PlantedPrompt(NamedTuple):
    """A question as token ids, with half-open spans marked; the last position predicts the answer."""

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answers: tuple[int, ...]
    distractors: tuple[int, ...]
    marks: dict[str, tuple[int, int]]


def repeats(rng: Random, vocabulary: Vocabulary, length: int) -> PlantedPrompt:
    """``BOS r1 ... rn r1 ... r(n-1)`` -> ``rn``, all different, n at most 14. Corrupted: in the first copy, r(n-1) has traded places with
    another r, so that what follows that one is predicted."""
    n = min(14, length // 2)
    drawn = rng.sample([*vocabulary.names, *vocabulary.fillers], n)
    other = rng.randrange(n - 3)
    swapped = list(drawn)
    swapped[other], swapped[n - 2] = drawn[n - 2], drawn[other]
    marks = {"first": (n - 1, n), "first_next": (n, n + 1)}
    again = drawn[:-1]
    return PlantedPrompt((BOS, *drawn, *again), (BOS, *swapped, *again), (drawn[-1],), (drawn[other + 1],), marks)


def ioi(rng: Random, vocabulary: Vocabulary, length: int) -> PlantedPrompt:
    """``BOS f A f B f f S f END`` -> the name of A and B that is not S. Corrupted: a third name in place of S."""
    io, s, other = rng.sample(vocabulary.names, 3)
    f = rng.sample(vocabulary.fillers, 5)
    places = [2, 4] if rng.random() < 0.5 else [4, 2]
    clean = [BOS, f[0], io, f[1], s, f[2], f[3], s, f[4], END]
    clean[places[0]], clean[places[1]] = io, s
    corrupted = [*clean[:7], other, *clean[8:]]
    marks = {"io": places[0], "s1": places[1], "s1_next": places[1] + 1, "s2": 7}
    return PlantedPrompt(tuple(clean), tuple(corrupted), (io,), (s,), {name: (at, at + 1) for name, at in marks.items()})


def needle(rng: Random, vocabulary: Vocabulary, length: int) -> PlantedPrompt:
    """``BOS f f [f n | MARK n | f n, in any order] f DELIMITER f f QUERY`` -> the name after MARK. Corrupted: MARK and the filler of
    another pair have traded places."""
    names, (f0, f1, f2, f3, f4, *signs) = rng.sample(vocabulary.names, 3), rng.sample(vocabulary.fillers, 7)
    kept, other = rng.sample(range(3), 2)
    signs.insert(kept, MARK)

    def text() -> tuple[int, ...]:
        pairs = [token for pair in zip(signs, names, strict=True) for token in pair]
        return (BOS, f0, f1, *pairs, f2, DELIMITER, f3, f4, QUERY)

    clean = text()
    signs[kept], signs[other] = signs[other], MARK
    marks = {"needle": (4 + 2 * kept, 5 + 2 * kept), "delimiter": (10, 11)}
    return PlantedPrompt(clean, text(), (names[kept],), (names[other],), marks)


PROMPTS: dict[str, Callable[[Random, Vocabulary, int], PlantedPrompt]] = {"repeats": repeats, "ioi": ioi, "needle": needle}
ANSWERED_BY = {
    "repeats": {"induction", "half_induction"},
    "ioi": {"name_mover"},
    "needle": {"retrieval", "anchor_reader"},
}
