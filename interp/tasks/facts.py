"""Facts: the capital, a language or the continent of a real country.

    The capital of France is        -> Paris (not Berlin)

The corrupted prompt names another country with another answer, which is the distractor. ``held_out=True`` takes only the
combinations of country and sentence form that `interp-mini` never saw in training, ``False`` only the others; for other models
the difference means nothing. Every combination comes once: there are at most 504 prompts, 84 of them held out.
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words import COUNTRIES, FACT_TEMPLATES, RELATIONS, fact_answer, is_held_out


@task_definition(metric="logit_diff", marks=("subject",), paper="Lv et al. 2024, arXiv 2403.19521")
def facts(rng: Random, usable: WordFilter, held_out: bool | None = None) -> Iterator[Prompt]:
    """A country's capital, language or continent."""
    countries = usable(usable(COUNTRIES), 2, after="")  # a country may begin the text, where GPT-2 has other tokens
    answers = {(c, r): fact_answer(c, r) for c in countries for r in RELATIONS}
    single = set(usable(dict.fromkeys(answers.values()), 2))
    answers = {cell: answer for cell, answer in answers.items() if answer in single}
    cells = [(c, r, t) for c, r in answers for t in range(len(FACT_TEMPLATES[r])) if held_out in (None, is_held_out(c, r, t))]
    for country, relation, template in rng.sample(cells, len(cells)):
        answer, form = answers[country, relation], FACT_TEMPLATES[relation][template]
        others = [c for c, r in answers if r == relation and answers[c, r] != answer]
        if others:
            other = rng.choice(others)
            clean, marks = read_marks(form.format(subject=mark("subject", country)))
            yield Prompt(clean, form.format(subject=other), (answer,), (answers[other, relation],), marks)
