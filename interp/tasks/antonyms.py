"""Antonyms in context: the opposite of a word, after a few solved examples.

    The opposite of hot is cold. The opposite of big is small. The opposite of up is        -> down (not new)

The corrupted prompt asks for another word, whose opposite is the distractor. No pair is used twice in a prompt.
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words_and_templates import ANTONYM_TEMPLATE, OPPOSITES


@task_definition(metric="logit_diff", marks=("query",), paper="Todd et al. 2024, arXiv 2310.15213")
def antonyms(rng: Random, usable: WordFilter, n_shots: int = 2) -> Iterator[Prompt]:
    """The opposite of a word, after examples of opposites."""
    known = {*usable([*OPPOSITES, *OPPOSITES.values()], 6)}
    pairs = [pair for pair in OPPOSITES.items() if {*pair} <= known]
    if not 0 <= n_shots <= len(pairs) - 2:
        raise ValueError(f"n_shots={n_shots} is outside 0 to {len(pairs) - 2}: every pair is used once.")
    while True:
        drawn = [pair[:: rng.choice((1, -1))] for pair in rng.sample(pairs, n_shots + 2)]
        (word, answer), (other, distractor), *shots = drawn
        lead = "".join(f"{ANTONYM_TEMPLATE.format(word=a)} {b}. " for a, b in shots)
        clean, marks = read_marks(lead + ANTONYM_TEMPLATE.format(word=mark("query", word)))
        yield Prompt(clean, lead + ANTONYM_TEMPLATE.format(word=other), (answer,), (distractor,), marks)
