"""Facts: the capital, a language or the continent of a real country.

    The capital of France is        -> Paris (not Berlin)

The corrupted prompt names another country with another answer, which is the distractor. ``held_out=True`` takes only the
combinations of country and sentence form that `interp-mini` never saw in training, ``False`` only the others; for other models
the difference means nothing. Every combination comes once: there are at most 504 prompts, 84 of them held out.

``n_shots`` facts of other countries in the same sentence form come first, so that the answer is the likely continuation. Without
a number they are 2 (fewer where the tokenizer leaves fewer countries), and none where the vocabulary is one of whole words
(`interp-mini`, which was trained on single facts).
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words_and_templates import COUNTRIES, FACT_TEMPLATES, RELATIONS, fact_answer, is_held_out

N_SHOTS = 2


@task_definition(metric="logit_diff", marks=("subject",), paper="Lv et al. 2024, arXiv 2403.19521")
def facts(rng: Random, usable: WordFilter, held_out: bool | None = None, n_shots: int | None = None) -> Iterator[Prompt]:
    """A country's capital, language or continent."""
    default = 0 if usable.whole_words else N_SHOTS
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
            pool = [c for c, r in answers if r == relation and c not in (country, other)]
            shots = _shots(rng, pool, min(default, len(pool)) if n_shots is None else n_shots)
            lead = "".join(f"{form.format(subject=c)} {answers[c, relation]}. " for c in shots)
            clean, marks = read_marks(lead + form.format(subject=mark("subject", country)))
            yield Prompt(clean, lead + form.format(subject=other), (answer,), (answers[other, relation],), marks)


def _shots(rng: Random, countries: list[str], n_shots: int) -> list[str]:
    """Countries whose facts are told. Raises ValueError for a number that there are not."""
    if not 0 <= n_shots <= len(countries):
        raise ValueError(f"n_shots={n_shots} is outside 0 to {len(countries)}, the number of other countries.")
    return rng.sample(countries, n_shots) if n_shots else []
