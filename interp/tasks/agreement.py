"""Subject-verb agreement: the number of the verb, with a noun of the other number between subject and verb.

    The books near the lamp are old. The ring near the cards is new. The keys near the box        -> are, were, have (not is, was, has)

``n_shots`` solved sentences, of alternating number, make the verb the likely continuation. Singular and plural subjects come equally
often; the corrupted prompt has the subject in the other number.
"""

from collections.abc import Iterator
from itertools import cycle, islice
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words_and_templates import ADJECTIVES, AGREEMENT_PREPOSITIONS, PLURALS, VERB_FORMS

MARKS = ("subject", "attractor")


@task_definition(metric="logit_diff", marks=MARKS, paper="Linzen et al. 2016, arXiv 1611.01368")
def agreement(rng: Random, usable: WordFilter, n_shots: int = 2) -> Iterator[Prompt]:
    """The number of the verb, with a noun of the other number in between."""
    known = {*usable([*PLURALS, *PLURALS.values()], 12)}
    nouns = [(one, many) for one, many in PLURALS.items() if {one, many} <= known]
    if not 0 <= n_shots <= len(nouns) // 2 - 1:
        raise ValueError(f"n_shots={n_shots} is outside 0 to {len(nouns) // 2 - 1}: every noun is used once.")
    adjectives, prepositions = usable(ADJECTIVES), usable(AGREEMENT_PREPOSITIONS, 1)
    for number in cycle((0, 1)):
        drawn, preposition = rng.sample(nouns, 2 * n_shots + 2), rng.choice(prepositions)
        numbers = islice(cycle(rng.sample((0, 1), 2)), n_shots)
        pairs = zip(drawn[2::2], drawn[3::2], numbers, strict=True)
        shots = [f"The {a[n]} {preposition} the {b[1 - n]} {VERB_FORMS[n][0]} {rng.choice(adjectives)}." for a, b, n in pairs]
        subject, attractor = drawn[0], drawn[1][1 - number]
        form = " ".join([*shots, f"The {{subject}} {preposition} the {mark('attractor', attractor)}"])
        clean, marks = read_marks(form.format(subject=mark("subject", subject[number])))
        corrupted, _ = read_marks(form.format(subject=subject[1 - number]))
        yield Prompt(clean, corrupted, VERB_FORMS[number], VERB_FORMS[1 - number], marks)
