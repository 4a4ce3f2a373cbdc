"""Indirect object identification: two names, one repeated; the other one is the answer.

    When Mary and John went to the store, John gave a drink to        -> Mary (not John)

Prompts come in pairs of one sentence form: the answer's name first (ABB order), then second (BAB order). ``corruption`` is
``abc`` (three other names: nothing is repeated) or ``flip`` (the other name is repeated, so that the answers trade places).
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.definition import shuffled
from interp.tasks.text_marks import after
from interp.tasks.words_and_templates import IOI_TEMPLATES, NAMES, OBJECTS, PLACES

CORRUPTIONS = ("abc", "flip")


@task_definition(metric="logit_diff", marks=("io", "s1", "s1_next", "s2"), paper="Wang et al. 2022, arXiv 2211.00593")
def ioi(rng: Random, usable: WordFilter, corruption: str = "abc") -> Iterator[Prompt]:
    """Who receives the gift: the name that is not repeated (IOI)."""
    if corruption not in CORRUPTIONS:
        raise ValueError(f"corruption={corruption!r} is not one of {', '.join(CORRUPTIONS)}.")
    names = usable(usable(NAMES), 5, after="")  # a name may begin the text, where GPT-2 has other tokens
    places, objects = usable(PLACES), usable(OBJECTS)
    for template in shuffled(rng, IOI_TEMPLATES):
        for io_first in (True, False):
            io, s, *others = rng.sample(names, 5)
            slots = {"place": rng.choice(places), "object": rng.choice(objects)}
            first, second = (mark("io", io), mark("s1", s))[:: 1 if io_first else -1]
            clean, marks = read_marks(template.format(a=first, b=second, s=mark("s2", s), **slots))
            if corruption == "flip":
                others = [*((io, s) if io_first else (s, io)), io]
            corrupted = template.format(a=others[0], b=others[1], s=others[2], **slots)
            yield Prompt(clean, corrupted, (io,), (s,), {**marks, "s1_next": after(clean, marks["s1"])})
