"""The definition of a task, independent of a model: a function that generates prompts, with metric, marks and paper.

A task file defines one decorated function with the name of the file:

    @task_definition(metric="logit_diff", marks=("subject",), paper="Somebody et al. 2022")
    def my_task(rng: Random, usable: WordFilter, difficult: bool = False) -> Iterator[Prompt]:
        \"""One line that describes the question.\"""

It yields prompts one at a time: the first ten of a hundred are those of a smaller task. Further parameters are options.
"""

import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from interp._check_argument_types import checks_arguments
from interp.registry import check_options
from interp.tasks.task import Prompt
from interp.tasks.tokenise import WordFilter

T = TypeVar("T")


@dataclass(frozen=True)
class TaskDefinition:
    """How to write the prompts of a task; ``marks`` are the marks of every prompt, ``metric`` the outcome that judges it."""

    name: str
    about: str
    metric: str
    marks: tuple[str, ...]
    paper: str
    function: Callable[..., Iterator[Prompt]]
    seed_name: str = ""
    """The name in the seed of the prompts, where it is not the task's."""

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The options of the task by name."""
        return dict(list(inspect.signature(self.function).parameters.items())[2:])

    @property
    def options(self) -> dict[str, Any]:
        """Options of the task with their defaults."""
        return {name: parameter.default for name, parameter in self.parameters.items()}

    def prompts(self, usable: WordFilter, seed: int, **options: Any) -> Iterator[Prompt]:
        """Prompts without end, or until the task has no more. Raises LookupError for an unknown option, TypeError for a value of another
        type than its annotation."""
        check_options(options, self.options, f"Task {self.name!r}", arguments=("n_prompts", "seed"))
        return checks_arguments(self.function)(random.Random(f"{self.seed_name or self.name}/{seed}"), usable, **options)


def task_definition(
    metric: str, marks: tuple[str, ...], paper: str, seed_name: str = ""
) -> Callable[[Callable[..., Iterator[Prompt]]], TaskDefinition]:
    """A decorator that makes a generator of prompts a ``TaskDefinition``; its docstring's first line describes the task."""

    def decorate(function: Callable[..., Iterator[Prompt]]) -> TaskDefinition:
        about = (function.__doc__ or "").strip().splitlines()[0]
        return TaskDefinition(function.__name__, about, metric, marks, paper, function, seed_name)

    return decorate


def shuffled(rng: random.Random, choices: Iterable[T]) -> Iterator[T]:
    """The choices in random order, again and again: after each full round every choice has come equally often."""
    deck: Sequence[T] = list(choices)
    while True:
        yield from rng.sample(deck, len(deck))
