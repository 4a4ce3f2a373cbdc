'''Docstring: which parameter a docstring describes next.

    def read(self, size, name, file, key, path, index):
    """text line

    :param size: count order
    :param name: page level
    :param        -> file (not size, name, key, path, index)

Of six parameters two are described and the next one is asked for. ``n_skipped`` leaves out that many parameters before the
described ones, so that their order alone tells the answer and counting lines does not (the published task skips 2;
`interp-mini` counts lines, and fails). In the corrupted prompt the parameters of the signature and the described ones are drawn
anew, independently. The distractors are the other parameters of the signature.'''

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words_and_templates import DOCSTRING_PARAMETER, DOCSTRING_TEMPLATE, FUNCTIONS, PARAMETERS

MARKS = ("answer", "before_answer", "described")
PAPER = "Heimersheim and Janiak 2023, A circuit for Python docstrings in a 4-layer attention-only transformer"


@task_definition(metric="logit_diff", marks=MARKS, paper=PAPER)
def docstring(rng: Random, usable: WordFilter, n_skipped: int = 0) -> Iterator[Prompt]:
    """The parameter that a docstring describes next."""
    if not 0 <= n_skipped <= 3:
        raise ValueError(f"n_skipped={n_skipped} is outside 0 to 3: there are 6 parameters, and 3 are needed.")
    pool, functions = usable(PARAMETERS, 20), usable(FUNCTIONS, 1)
    while True:
        drawn = rng.sample(pool, 20)
        names, others, words = drawn[:6], drawn[6:14], [" ".join(drawn[i : i + 2]) for i in (14, 16, 18)]
        described, answer = names[n_skipped : n_skipped + 2], names[n_skipped + 2]
        marked = names.copy()
        marked[n_skipped + 1 : n_skipped + 3] = mark("before_answer", described[1]), mark("answer", answer)
        function = rng.choice(functions)
        clean, marks = read_marks(_text(function, marked, [described[0], mark("described", described[1])], words))
        corrupted = _text(function, others[:6], others[6:], words)
        yield Prompt(clean, corrupted, (answer,), tuple(name for name in names if name != answer), marks)


def _text(function: str, names: list[str], described: list[str], words: list[str]) -> str:
    """A function up to the place where the next parameter is named."""
    lines = [DOCSTRING_PARAMETER.format(name=n, words=w) for n, w in zip(described, words[1:], strict=True)]
    head = DOCSTRING_TEMPLATE.format(function=function, parameters=", ".join(names), words=words[0])
    return head + "".join(lines) + DOCSTRING_PARAMETER.split(" {name}")[0]
