"""Greater-than: an end year that must come after the start year.

    The war lasted from the year 1732 to the year 17        -> 33, 34 ... 99 (not 00 ... 32)

The prompt holds all of the end year but its last token, in the way in which the tokenizer cuts years: two digits are left of 17|32
(GPT-2, `interp-mini`), one of 1|7|3|2 (SmolLM2, Llama 2) and of 173|2 (Llama 3), the whole year where it is one token:

    The war lasted from the year 1732 to the year 173       -> 3, 4 ... 9 (not 0, 1, 2)
    The war lasted from the year 1732 to the year           -> 1733 ... 1799 (not 1700 ... 1732)

The answers are all such tokens above the start year, the distractors all others of its century (or decade); the corrupted prompt starts in
01 (or 0), where nearly every end is right. Start years come equally often. A tokenizer may write some years in other pieces (GPT-2: 1863 is
one token); such years are neither asked nor counted, and a century with more than a tenth of them is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.definition import shuffled
from interp.tasks.words_and_templates import CENTURIES, GREATER_THAN_TEMPLATE, YEAR_NOUNS

DIGITS = [str(digit) for digit in range(10)]
TWO_DIGITS = [f"{number:02d}" for number in range(100)]
WHOLE = ".."
"""What marks a century whose years are one token."""

FORMS = (
    {str(century): TWO_DIGITS for century in CENTURIES},
    {f"{century}{tens}": DIGITS for century in CENTURIES for tens in DIGITS},
    {f"{century}{WHOLE}": [f"{century}{year}" for year in TWO_DIGITS] for century in CENTURIES},
)
"""The ways of cutting years: for each century or decade the last tokens of its years, ascending."""


@dataclass(frozen=True)
class Years:
    """The years of a century or decade: ``before`` are the digits before the last token, ``last`` its known forms. The corrupted prompt
    starts in ``lowest``, clean ones in ``starts``."""

    before: str
    last: list[str]
    lowest: str
    starts: list[str]


@task_definition(metric="prob_diff", marks=("start",), paper="Hanna et al. 2023, arXiv 2305.00586")
def greater_than(rng: Random, usable: WordFilter) -> Iterator[Prompt]:
    """Which year a thing can have ended in: any later one of the same century."""
    nouns, groups = usable(YEAR_NOUNS), _groups(usable)
    fitting = {start: [g for g in groups if start in g.starts] for start in dict.fromkeys(s for g in groups for s in g.starts)}
    for start in shuffled(rng, sorted(fitting)):
        years = rng.choice(fitting[start])
        slots = {"noun": rng.choice(nouns), "century": years.before}
        clean, marks = read_marks(GREATER_THAN_TEMPLATE.format(start=mark("start", start), **slots).rstrip())
        corrupted = GREATER_THAN_TEMPLATE.format(start=years.lowest, **slots).rstrip()
        later = tuple(y for y in years.last if y > start)
        yield Prompt(clean, corrupted, later, tuple(y for y in years.last if y <= start), marks)


def _groups(usable: WordFilter) -> list[Years]:
    """The groups of years in the first form that the tokenizer has. Raises ValueError where it has none."""
    for form in FORMS:
        if groups := [years for group, last in form.items() if (years := _years(usable, group, last))]:
            return groups
    cut = f"and {usable.model.facts.name} cuts them otherwise: use another task"
    raise ValueError(
        f"Task 'greater_than' needs years that end in a token of two digits, one or four (17|32, 1|7|3|2, 1732), {cut}."
    )


def _years(usable: WordFilter, group: str, last: list[str]) -> Years | None:
    """The years of a group; None where more than a tenth of them, or the lowest, are cut otherwise."""
    before = "" if group.endswith(WHOLE) else group
    known, low = usable.single(last, after=f"the year {before}".rstrip()), len(last) // 100  # 01, 0 or 1701
    if 10 * len(known) < 9 * len(last) or last[low] not in known:
        return None
    starts = [start for start in last[low + 1 : len(last) - 1 - low] if start in known and known[-1] > start]
    return Years(before, known, last[low], starts)
