"""Gendered pronoun: the pronoun of a person who is known by name alone.

    When Mary came home from the store,        -> she (not he)

Women and men come equally often in every sentence form. The corrupted prompt names a person of the other gender, whose pronoun is the
distractor. Names are common English ones, taken with the gender that they usually have.
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.definition import shuffled
from interp.tasks.words_and_templates import OBJECTS, PLACES, PRONOUN_NAMES, PRONOUN_TEMPLATES


@task_definition(
    metric="logit_diff", marks=("name",), paper="Mathwin et al. 2023, Identifying a preliminary circuit for gendered pronouns"
)
def gendered_pronoun(rng: Random, usable: WordFilter) -> Iterator[Prompt]:
    """The pronoun (she or he) of a named person."""
    names = {pronoun: usable(of_gender, after="When") for pronoun, of_gender in PRONOUN_NAMES.items()}
    places, objects = usable(PLACES), usable(OBJECTS)
    for template in shuffled(rng, PRONOUN_TEMPLATES):
        for pronoun, other in (("she", "he"), ("he", "she")):
            slots = {"place": rng.choice(places), "object": rng.choice(objects)}
            clean, marks = read_marks(template.format(name=mark("name", rng.choice(names[pronoun])), **slots))
            corrupted = template.format(name=rng.choice(names[other]), **slots)
            yield Prompt(clean, corrupted, (pronoun,), (other,), marks)
