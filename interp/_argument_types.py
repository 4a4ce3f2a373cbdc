"""One sentence for a wrong argument: what public functions say when a model, a task or heads are something else.

Public functions are given the check where their packages export them (``_lazy.exports``), so that none of them repeats it; a function
that a package defines itself takes it as a decorator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def checks_arguments(function: F) -> F:
    """The function, which raises TypeError when an argument annotated as a model, its facts, a task or heads is something else.

    There is one checking function for each function, so that a name is the same object wherever it is exported.
    """
    if function in _CHECKED:
        return _CHECKED[function]
    parameters = signature(function).parameters.values()
    checks = {p.name: check for p in parameters if (check := _CHECKS.get(_annotation(p.annotation)))}
    if not checks:
        return function
    names = [p.name for p in parameters]

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if name in checks and value is not None:
                checks[name](name, value)
        return function(*args, **kwargs)

    _CHECKED[function] = _CHECKED[checked] = checked
    return checked  # type: ignore[return-value]


def _annotation(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\b\w+\.", "", text).strip("\"'").removesuffix(" | None")


def _is(value: Any, kind: str) -> bool:
    """Whether the value is of the class of this name: its room lies above this file and may not be loaded yet."""
    return any(base.__name__ == kind for base in type(value).__mro__)


def _check_model(name: str, value: Any) -> None:
    if not _is(value, "Model"):
        hint = "interp.models.wrap_model makes one of a Hugging Face model"
        if isinstance(value, str):
            hint = f"interp.load_model({value!r})"
        elif _is(getattr(value, "model", None), "Model"):
            hint = "pass its .model"
        raise TypeError(f"{name} must be a Model as returned by load_model, not {type(value).__name__}: {hint}.")


def _check_facts(name: str, value: Any) -> None:
    if _is(value, "Model"):
        raise TypeError(f"{name} must be the ModelFacts of a model, not Model: pass model.facts.")


def _check_task(name: str, value: Any) -> None:
    if not _is(value, "Task"):
        hint = f": interp.make_task({value!r}, model)" if isinstance(value, str) else ""
        raise TypeError(f"{name} must be a Task as returned by make_task or task_from_jsonl, not {type(value).__name__}{hint}.")


def _check_heads(name: str, value: Any) -> None:
    if isinstance(value, str) or _is(value, "Head") or not isinstance(value, Iterable):
        hint = f": [Head.parse({value!r})]" if isinstance(value, str) else f": [{value!r}]" if _is(value, "Head") else ""
        raise TypeError(f"{name} must be a list of Head, not {type(value).__name__}{hint}.")
    for item in value if isinstance(value, list | tuple | set | frozenset) else ():
        if not _is(item, "Head"):
            raise TypeError(f"{name} must be a list of Head, and {item!r} is a {type(item).__name__}: Head(5, 1) is L5H1.")


_CHECKED: dict[Callable[..., Any], Any] = {}
_CHECKS = {
    "Model": _check_model,
    "ModelFacts": _check_facts,
    "Task": _check_task,
    "Sequence[Head]": _check_heads,
    "Iterable[Head]": _check_heads,
}
