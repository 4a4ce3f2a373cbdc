"""Greater-than: an end year that must come after the start year.

    The war lasted from the year 1732 to the year 17        -> 33, 34 ... 99 (not 00 ... 32)

The answers are all two-digit tokens above the start year, the distractors all others; the corrupted prompt starts in 01, where
nearly every end is right. Start years 02 to 97 come equally often. A tokenizer may write some years as one token (GPT-2: 1863)
or in other pieces; such years are neither asked nor counted, and a century with more than ten of them is left out.
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.definition import shuffled
from interp.tasks.words import CENTURIES, GREATER_THAN_TEMPLATE, YEAR_NOUNS

TWO_DIGITS = [f"{number:02d}" for number in range(100)]


@task_definition(metric="prob_diff", marks=("start",), paper="Hanna et al. 2023, arXiv 2305.00586")
def greater_than(rng: Random, usable: WordFilter) -> Iterator[Prompt]:
    """Which year a thing can have ended in: any later one of the same century."""
    nouns = usable(YEAR_NOUNS)
    years = {century: usable(TWO_DIGITS, 0, after=f"the year {century}") for century in CENTURIES}
    years = {century: known for century, known in years.items() if len(known) >= 90 and "01" in known}
    if not years:
        otherwise = f"and {usable.model.facts.name} cuts them otherwise: use another task"
        raise ValueError(f"Task 'greater_than' needs years of two tokens, such as 17|32, {otherwise}.")
    fitting = {start: [c for c, known in years.items() if start in known and known[-1] > start] for start in TWO_DIGITS[2:98]}
    for start in shuffled(rng, [start for start, centuries in fitting.items() if centuries]):
        century = rng.choice(fitting[start])
        slots = {"noun": rng.choice(nouns), "century": century}
        clean, marks = read_marks(GREATER_THAN_TEMPLATE.format(start=mark("start", start), **slots))
        corrupted = GREATER_THAN_TEMPLATE.format(start="01", **slots)
        later = tuple(y for y in years[century] if y > start)
        yield Prompt(clean, corrupted, later, tuple(y for y in years[century] if y <= start), marks)
