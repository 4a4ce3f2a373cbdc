"""Induction: a random word is repeated, and what followed it before follows again.

    tin, horn lamp ice, wave salt oil, corn nut key, ... wave salt oil, horn        -> lamp (not nut)

(commas added for the eye). Chunks of random words with noise between them; some come again in random order, so that the
distance to the earlier copy says nothing; then the first word of a chunk that occurred once. In the corrupted prompt the first
words of this chunk and of another one have traded places, so that the other one's second word, the distractor, should follow.
"""

from collections.abc import Iterator
from itertools import islice
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words_and_templates import WORDS


@task_definition(metric="logit_diff", marks=("first", "first_next"), paper="Olsson et al. 2022, arXiv 2209.11895")
def induction(rng: Random, usable: WordFilter, n_chunks: int = 4) -> Iterator[Prompt]:
    """The word that followed the last word when it occurred before (random words, repeated but not periodic)."""
    if n_chunks < 2:
        raise ValueError(f"n_chunks={n_chunks} is too few: give at least 2, one to ask for and one for the distractor.")
    pool = usable(WORDS, 10 * n_chunks + 3)
    while True:
        fresh = iter(rng.sample(pool, 10 * n_chunks + 3))
        chunks = [list(islice(fresh, rng.randint(3, 6))) for _ in range(n_chunks)]
        text, starts = [next(fresh)], []  # no copied word begins the text, where GPT-2 has other tokens
        for chunk in chunks:
            starts.append(len(text))
            text += [*chunk, *islice(fresh, rng.randint(0, 2))]
        target, other, *rest = rng.sample(range(n_chunks), n_chunks)
        tail = [word for i in rest for word in [*islice(fresh, rng.randint(0, 2)), *chunks[i]]]
        tail += [*islice(fresh, rng.randint(0, 2)), chunks[target][0]]
        swapped = text.copy()
        swapped[starts[target]], swapped[starts[other]] = chunks[other][0], chunks[target][0]
        text[starts[target]] = mark("first", chunks[target][0])
        text[starts[target] + 1] = mark("first_next", chunks[target][1])
        clean, marks = read_marks(" ".join(text + tail))
        yield Prompt(clean, " ".join(swapped + tail), (chunks[target][1],), (chunks[other][1],), marks)
