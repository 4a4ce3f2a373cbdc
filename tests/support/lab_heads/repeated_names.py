"""Repeated names: a list of names begins a second time, and its last name is missing.

Ann Bob Carl Dora Bob Carl        -> Dora
"""

from interp.tasks import Prompt, mark, read_marks, task_definition
from interp.tasks.words_and_templates import NAMES


@task_definition(metric="logit_diff", marks=("last",), paper="our lab notes, 2026")
def repeated_names(rng, usable, n_names: int = 3):
    """The last name of a list of names that is written twice."""
    names = usable(NAMES, n_names + 2)
    while True:
        first, other, last, *rest = rng.sample(names, n_names + 2)
        clean, marks = read_marks(" ".join([first, *rest, mark("last", last), *rest]))
        corrupted = " ".join([first, *rest, other, *rest])
        yield Prompt(clean, corrupted, (last,), (other,), marks)
