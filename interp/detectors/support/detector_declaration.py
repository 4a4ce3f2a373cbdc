"""What a detector declares beside its function, so that no other file lists detectors by name."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def detector(
    *, about: str | None = None, default_task: str | None = None, quick: bool = False
) -> Callable[[Function], Function]:
    """A decorator that stores ``about``, ``default_task`` and ``quick`` as attributes of a detector.

    ``about`` is one line for lists (default: the first sentence of the file's docstring); ``default_task`` a task that needs the role, for
    ``confirm``; ``quick`` detectors run on few or no prompts, so a head card runs them by default.
    """

    def declare(function: Function) -> Function:
        function.__dict__.update(about=about, default_task=default_task, quick=quick)
        return function

    return declare
