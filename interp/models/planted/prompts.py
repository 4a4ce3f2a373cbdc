"""Prompts for planted models, in pairs of clean and corrupted; ``interp.tasks.Example(*prompt)`` makes one of each."""

from collections.abc import Iterator
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


def repeats(rng: Random, vocabulary: Vocabulary, length: int) -> Iterator[PlantedPrompt]:
    """``BOS r1 ... rn r1 ... r(n-1)`` -> ``rn``, all different, n at most 14. Corrupted: in the first copy, r(n-1) is exchanged with
    another r, so that the token after that one is predicted."""
    n = min(14, length // 2)
    while True:
        words = rng.sample([*vocabulary.names, *vocabulary.fillers], n)
        other = rng.randrange(n - 3)
        swapped = words.copy()
        swapped[other], swapped[n - 2] = words[n - 2], words[other]
        marks = {"first": (n - 1, n), "first_next": (n, n + 1)}
        clean, corrupted = (BOS, *words, *words[:-1]), (BOS, *swapped, *words[:-1])
        yield PlantedPrompt(clean, corrupted, (words[-1],), (words[other + 1],), marks)


def ioi(rng: Random, vocabulary: Vocabulary, length: int) -> Iterator[PlantedPrompt]:
    """``BOS f A f B f f S f END`` -> the name of A and B that is not S; by turns S is B and A. Corrupted: a third name in place of S."""
    while True:
        for io_at, s1_at in ((2, 4), (4, 2)):
            io, s, other = rng.sample(vocabulary.names, 3)
            f1, f2, f3, f4, f5 = rng.sample(vocabulary.fillers, 5)
            a, b = (io, s) if io_at < s1_at else (s, io)
            clean, corrupted = ((BOS, f1, a, f2, b, f3, f4, s2, f5, END) for s2 in (s, other))
            marks = {"io": io_at, "s1": s1_at, "s1_next": s1_at + 1, "s2": 7}
            yield PlantedPrompt(clean, corrupted, (io,), (s,), {name: (at, at + 1) for name, at in marks.items()})


def needle(rng: Random, vocabulary: Vocabulary, length: int) -> Iterator[PlantedPrompt]:
    """``BOS f f [f n | MARK n | f n, in any order] f DELIMITER f f QUERY`` -> the name after MARK. Corrupted: MARK elsewhere."""
    while True:
        names, (f1, f2, f3, f4, f5, *signs) = rng.sample(vocabulary.names, 3), rng.sample(vocabulary.fillers, 7)
        kept, other = rng.sample(range(3), 2)
        signs.insert(kept, MARK)
        swapped = signs.copy()
        swapped[kept], swapped[other] = signs[other], MARK
        clean, corrupted = (
            (BOS, f1, f2, *(token for pair in zip(before, names, strict=True) for token in pair), f3, DELIMITER, f4, f5, QUERY)
            for before in (signs, swapped)
        )
        marks = {"needle": (4 + 2 * kept, 5 + 2 * kept), "delimiter": (10, 11)}
        yield PlantedPrompt(clean, corrupted, (names[kept],), (names[other],), marks)


PROMPTS = {"repeats": repeats, "ioi": ioi, "needle": needle}
ANSWERED_BY = {"repeats": {"induction", "half_induction"}, "ioi": {"name_mover"}, "needle": {"retrieval", "anchor_reader"}}
