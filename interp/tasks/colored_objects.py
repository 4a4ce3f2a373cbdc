"""Coloured objects: a list of things, one solved question about it, then another question.

    On the table there is a red cup, a blue pen and a gold key. What color is the cup? Answer: red.
    What color is the key? Answer:        -> gold (not blue)

(one line in the prompt). The corrupted prompt asks for the third thing instead; its colour is the distractor. With ``n_solved=2`` the third
thing is solved as well, in statements, and has traded places with the asked one in the corrupted prompt:

    On the table there is a red cup, a blue pen and a gold key. The cup is red. The pen is blue. The key is        -> gold (not blue)

Without a number it is 2, and 1 where the vocabulary is one of whole words (`interp-mini`, which was trained on one solved question).
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words_and_templates import COLORED_LISTS, COLORED_QUESTIONS, COLORED_STATEMENTS, COLORS, NAMES, NOUNS, listed

MARKS = ("object", "color", "distractor", "solved", "question", "query")


@task_definition(metric="logit_diff", marks=MARKS, paper="Merullo et al. 2023, arXiv 2310.08744")
def colored_objects(rng: Random, usable: WordFilter, n_objects: int = 3, n_solved: int | None = None) -> Iterator[Prompt]:
    """The color of one of several things, after solved questions about others."""
    n_solved = (1 if usable.whole_words else 2) if n_solved is None else n_solved
    if n_objects < 3:
        raise ValueError(f"n_objects={n_objects} is too few: give at least 3 (solved, asked and distractor).")
    if n_solved not in (1, 2):
        raise ValueError(f"n_solved={n_solved} is not 1 or 2.")
    nouns, colors, names = usable(NOUNS, n_objects), usable(COLORS, n_objects), usable(NAMES)
    while True:
        things = dict(zip(rng.sample(nouns, n_objects), rng.sample(colors, n_objects), strict=True))
        solved, target, other = rng.sample(list(things), 3)
        roles = {solved: ("solved", "_"), target: ("color", "object"), other: ("distractor", "_")}
        items = [
            f"a {mark(roles[noun][0], color)} {mark(roles[noun][1], noun)}" if noun in roles else f"a {color} {noun}"
            for noun, color in things.items()
        ]
        things_listed = rng.choice(COLORED_LISTS).format(items=listed(items), name=rng.choice(names))
        form = rng.choice(COLORED_QUESTIONS if n_solved == 1 else COLORED_STATEMENTS)
        lead, answers = f"{things_listed} ", {noun: f"{form.format(noun=noun)} {color}. " for noun, color in things.items()}
        first, second = (answers[solved] + (answers[shown] if n_solved == 2 else "") for shown in (other, target))
        clean, marks = read_marks(lead + first + mark("question", form.format(noun=mark("query", target))))
        corrupted, _ = read_marks(lead + second + form.format(noun=other))
        marks.pop("_")
        yield Prompt(clean, corrupted, (things[target],), (things[other],), marks)
