"""Steps that follow a plan: whose turn it is, when the plan alone says so.

    Lisa took the book. Tom took the key. Mary took the pen. Question: who took what?
    Plan: first Mary, second Tom. Step first:        -> Mary (not Tom)

Of ``n_people`` people, told in random order, the plan names ``n_steps`` in another one, which stands nowhere else. In the
corrupted prompt the first two of the plan have traded places, and nothing else is changed: the second, the distractor, should
come first. The mark ``response`` begins where a model that plans would begin to write.
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words_and_templates import NAMES, OBJECTS, ORDINALS

MARKS = ("response", "plan", "planned", "planned_next")


@task_definition(metric="logit_diff", marks=MARKS, paper="Li et al. 2025, arXiv 2510.13554", seed_name="plan")
def plan_following(rng: Random, usable: WordFilter, n_people: int = 4, n_steps: int = 3) -> Iterator[Prompt]:
    """The first of the people that a plan names in an order of its own."""
    if not 2 <= n_steps <= min(n_people, len(ORDINALS)):
        raise ValueError(f"n_steps={n_steps} is outside 2 to {min(n_people, len(ORDINALS))}: n_people={n_people} are told of.")
    names, objects = usable(usable(NAMES), n_people, after=""), usable(OBJECTS, n_people)
    while True:
        people, things = rng.sample(names, n_people), rng.sample(objects, n_people)
        statements = " ".join(f"{who} took the {what}." for who, what in zip(people, things, strict=True))
        first, second, *rest = rng.sample(people, n_steps)
        text = f"{statements} Question: who took what? "
        clean, marks = read_marks(text + _response([mark("planned", first), mark("planned_next", second), *rest]))
        corrupted, _ = read_marks(text + _response([second, first, *rest]))
        yield Prompt(clean, corrupted, (first,), (second,), marks)


def _response(planned: list[str]) -> str:
    items = ", ".join(f"{ordinal} {who}" for ordinal, who in zip(ORDINALS, planned, strict=False))
    return mark("response", f"{mark('plan', f'Plan: {items}.')} Step {ORDINALS[0]}:")
