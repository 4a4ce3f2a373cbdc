'''Docstring: which parameter a docstring describes next.

    def read(self, size, name, file, key, path, index):
    """text line

    :param file: count order
    :param key: page level
    :param        -> path (not size, name, file, key, index)

Of six parameters the third and the fourth are described, the fifth is asked for. In the corrupted prompt the parameters of the
signature and the described ones are drawn anew, independently. The distractors are the other parameters of the signature.
'''

from collections.abc import Iterator
from random import Random

from interp.tasks.marking import mark, read_marks
from interp.tasks.source import source
from interp.tasks.task import Prompt
from interp.tasks.tokenise import WordFilter
from interp.tasks.words import DOCSTRING_PARAMETER, DOCSTRING_TEMPLATE, FUNCTIONS, PARAMETERS

MARKS = ("answer", "before_answer", "described")
PAPER = "Heimersheim and Janiak 2023, A circuit for Python docstrings in a 4-layer attention-only transformer"


@source(metric="logit_diff", marks=MARKS, paper=PAPER)
def docstring(rng: Random, usable: WordFilter) -> Iterator[Prompt]:
    """The parameter that a docstring describes next."""
    pool, functions = usable(PARAMETERS, 20), usable(FUNCTIONS, 1)
    while True:
        drawn = rng.sample(pool, 20)
        names, others, words = drawn[:6], drawn[6:14], [" ".join(drawn[i : i + 2]) for i in (14, 16, 18)]
        marked = [*names[:3], mark("before_answer", names[3]), mark("answer", names[4]), names[5]]
        function = rng.choice(functions)
        clean, marks = read_marks(_text(function, marked, [names[2], mark("described", names[3])], words))
        corrupted = _text(function, others[:6], others[6:], words)
        yield Prompt(clean, corrupted, (names[4],), (*names[:4], names[5]), marks)


def _text(function: str, names: list[str], described: list[str], words: list[str]) -> str:
    """A function up to the place where the next parameter is named."""
    lines = [DOCSTRING_PARAMETER.format(name=n, words=w) for n, w in zip(described, words[1:], strict=True)]
    head = DOCSTRING_TEMPLATE.format(function=function, parameters=", ".join(names), words=words[0])
    return head + "".join(lines) + DOCSTRING_PARAMETER.split(" {name}")[0]
