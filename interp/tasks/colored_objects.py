"""Coloured objects: a list of things, one solved question about it, then another question.

    On the table there is a red cup, a blue pen and a gold key. What color is the cup? Answer: red.
    What color is the key? Answer:        -> gold (not blue)

(one line in the prompt). The corrupted prompt asks for the third thing instead; its colour is the distractor.
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words import COLORED_LISTS, COLORED_QUESTIONS, COLORS, NAMES, NOUNS, listed

MARKS = ("object", "color", "distractor", "solved", "question", "query")


@task_definition(metric="logit_diff", marks=MARKS, paper="Merullo et al. 2023, arXiv 2310.08744")
def colored_objects(rng: Random, usable: WordFilter, n_objects: int = 3) -> Iterator[Prompt]:
    """The colour of one of several things, after one solved question about another."""
    if n_objects < 3:
        raise ValueError(f"n_objects={n_objects} is too few: give at least 3 (solved, asked and distractor).")
    nouns, colors, names = usable(NOUNS, n_objects), usable(COLORS, n_objects), usable(NAMES)
    while True:
        things = dict(zip(rng.sample(nouns, n_objects), rng.sample(colors, n_objects), strict=True))
        solved, asked, other = rng.sample(list(things), 3)
        roles = {solved: ("solved", "_"), asked: ("color", "object"), other: ("distractor", "_")}
        items = [
            f"a {mark(roles[noun][0], color)} {mark(roles[noun][1], noun)}" if noun in roles else f"a {color} {noun}"
            for noun, color in things.items()
        ]
        things_listed = rng.choice(COLORED_LISTS).format(items=listed(items), name=rng.choice(names))
        form = rng.choice(COLORED_QUESTIONS)
        lead = f"{things_listed} {form.format(noun=solved)} {things[solved]}. "
        clean, marks = read_marks(lead + mark("question", form.format(noun=mark("query", asked))))
        corrupted, _ = read_marks(lead + form.format(noun=other))
        marks.pop("_")
        yield Prompt(clean, corrupted, (things[asked],), (things[other],), marks)
