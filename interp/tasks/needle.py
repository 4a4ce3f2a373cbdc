"""Needle in filler: a secret word hidden among sentences without information, with other secrets beside it.

    The dog sees the park. The secret word of Mary is tin. ... What is the secret word of Mary? Answer:        -> tin (not lamp)

``depth`` is the share of the filler before the needle: 0 = at the start, 1 = right before the question; without it all depths
come equally often. In the corrupted prompt the asked name and a competing one have traded places: the distractor should follow.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.definition import shuffled
from interp.tasks.words_and_templates import FILLER_TEMPLATES, FILLER_WORDS, NAMES, NEEDLE_QUESTIONS, NEEDLE_TEMPLATES, WORDS

MARKS = ("needle", "needle_name", "needle_value", "distractor", "question", "query")
PAPER = "Wu et al. 2024, arXiv 2404.15574"


@task_definition(metric="logit_diff", marks=MARKS, paper=PAPER)
def needle(
    rng: Random, usable: WordFilter, n_filler: int = 8, n_competing: int = 2, depth: float | int | None = None
) -> Iterator[Prompt]:
    """The secret word of one person, hidden at some depth of a text that also holds other secrets."""
    if n_filler < 0:
        raise ValueError(f"n_filler={n_filler} is negative: give the number of filler sentences.")
    if n_competing < 1:
        raise ValueError(f"n_competing={n_competing} is too few: give at least 1, whose secret is the distractor.")
    if depth is not None and not 0 <= depth <= 1:
        raise ValueError(f"depth={depth} is outside 0 (start) to 1 (right before the question).")
    names, filler = usable(usable(NAMES), n_competing + 2, after=""), _filler(rng, usable)
    pool = usable(set_aside(WORDS), n_competing + 1)
    for start in shuffled(rng, range(n_filler + 1) if depth is None else [round(depth * n_filler)]):
        people, secrets = rng.sample(names, n_competing + 1), rng.sample(pool, n_competing + 1)
        places = [start + rng.random(), *(rng.uniform(0, n_filler + 1) for _ in range(n_competing))]
        fillers, form = [filler(people) for _ in range(n_filler)], rng.choice(NEEDLE_TEMPLATES)
        question = mark("question", rng.choice(NEEDLE_QUESTIONS).format(name=mark("query", people[0])))
        swapped = [people[1], people[0], *people[2:]]
        texts = [_hidden(_needles(form, who, secrets), places, fillers) for who in (people, swapped)]
        (clean, marks), (corrupted, _) = (read_marks(" ".join([*text, question])) for text in texts)
        yield Prompt(clean, corrupted, (secrets[0],), (secrets[1],), marks)


def set_aside(words: Sequence[str]) -> list[str]:
    """The words that no filler sentence, needle or question uses, so that a secret occurs once."""
    forms = " ".join([*FILLER_TEMPLATES, *NEEDLE_TEMPLATES, *NEEDLE_QUESTIONS])
    used = set(re.findall(r"\w+", forms)).union(*FILLER_WORDS.values())
    return [word for word in words if word not in used]


def _needles(form: str, people: list[str], secrets: list[str]) -> list[str]:
    """The sentences that tell the secrets: first the one asked for, then the one whose secret is the distractor."""
    target = mark("needle", form.format(name=mark("needle_name", people[0]), word=mark("needle_value", secrets[0])))
    other = form.format(name=people[1], word=mark("distractor", secrets[1]))
    return [target, other, *(form.format(name=who, word=word) for who, word in zip(people[2:], secrets[2:], strict=True))]


def _hidden(needles: list[str], places: list[float], fillers: list[str]) -> list[str]:
    """The filler sentences, with each needle after as many of them as its place says."""
    text = []
    for i in range(len(fillers) + 1):
        text += [needle for place, needle in sorted(zip(places, needles, strict=True)) if i <= place < i + 1]
        text += fillers[i : i + 1]
    return text


def _filler(rng: Random, usable: WordFilter) -> Callable[[list[str]], str]:
    """A maker of sentences without information that mention none of the given people."""
    lists = {slot: usable(words) for slot, words in FILLER_WORDS.items()}
    names = usable(NAMES)

    def sentence(people: list[str]) -> str:
        drawn = {slot: rng.choice(words) for slot, words in lists.items()}
        animal2, adjective2 = (rng.choice([w for w in lists[s] if w != drawn[s]]) for s in ("animal", "adjective"))
        name = rng.choice([n for n in names if n not in people])
        return rng.choice(FILLER_TEMPLATES).format(**drawn, animal2=animal2, adjective2=adjective2, name=name)

    return sentence
