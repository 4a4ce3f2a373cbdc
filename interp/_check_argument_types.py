"""One sentence for an argument of the wrong type, made from the annotation of the parameter.

Public functions are given the check where their packages export them (``_lazy.exports``), so that none of them repeats it; a function
that a package defines itself takes it as a decorator.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from typing import Any, TypeVar

from interp.errors import there_are

F = TypeVar("F", bound=Callable[..., Any])


def checks_arguments(function: F) -> F:
    """The function, which raises TypeError for an argument that it does not have, and for one whose type its annotation excludes.

    Numbers, text, paths, the classes of ``_SOURCES`` and lists of these are checked; every other annotation is let through, and None where
    the annotation or the default allows it.
    There is one checking function for each function, so that a name is the same object wherever it is exported.
    """
    if function in _CHECKED:
        return _CHECKED[function]
    parameters = signature(function).parameters.values()
    kinds = {p.name: kind for p in parameters if p.kind is not p.VAR_KEYWORD and (kind := _parse(p.annotation))}
    optional = {p.name for p in parameters if p.default is None or "None" in str(p.annotation)}
    names = [p.name for p in parameters]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if unknown := [] if takes_any else [name for name in kwargs if name not in names]:
            raise TypeError(f"{function.__name__} has no argument {unknown[0]!r}.{there_are(unknown[0], names)}")
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if name in kinds and not (value is None and name in optional) and not _matches(kinds[name], value):
                raise TypeError(f"{name} must be {_sentence(kinds[name], value)}.")
        return function(*args, **kwargs)

    _CHECKED[function] = _CHECKED[checked] = checked
    return checked  # type: ignore[return-value]


def _parse(annotation: Any) -> ast.expr | None:
    """An annotation without module names as an expression, without its None."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = re.sub(r"\b[a-z_]\w*\.(?=\w)", "", text.strip("\"'")).removesuffix(" | None")
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _is(value: Any, kind: str) -> bool:
    """Whether the value is of the class of this name: its room lies above this file and may not be loaded yet."""
    return any(base.__name__ == kind for base in type(value).__mro__)


def _is_collection(value: Any) -> bool:
    """Whether a value holds several: text does not, nor does a head, which is a tuple."""
    return isinstance(value, Iterable) and not isinstance(value, str) and not _is(value, "Head")


def _matches(kind: ast.expr, value: Any) -> bool:
    match kind:
        case ast.BinOp(left=left, right=right):
            return _matches(left, value) or _matches(right, value)
        case ast.Name(id=name) if name in _PLAIN:
            return isinstance(value, _PLAIN[name])
        case ast.Name(id=name) if name in _SOURCES:
            return _is(value, name)
        case ast.Subscript(value=ast.Name(id="Sequence" | "Iterable" | "Collection"), slice=item):
            items = value if isinstance(value, list | tuple | set | frozenset) else ()
            return _is_collection(value) and all(_matches(item, each) for each in items)
    return True


def _sentence(kind: ast.expr, value: Any) -> str:
    wanted, hint = with_article(_words(kind)), _hint(kind, value)
    wrong = "not " + type(value).__name__
    if isinstance(kind, ast.Subscript) and _is_collection(value):
        item = next(each for each in value if not _matches(kind.slice, each))
        wrong, hint = f"and {item!r} is {with_article(type(item).__name__)}", _hint(kind.slice, item)
    return f"{wanted}, {wrong}{hint and ': '}{hint}"


def _words(kind: ast.expr) -> str:
    match kind:
        case ast.BinOp(left=left, right=right):
            return f"{_words(left)} or {_words(right)}"
        case ast.Subscript(slice=item):
            return f"list of {_words(item)}"
    name = ast.unparse(kind)
    return name + (f" as returned by {_SOURCES[name]}" if _SOURCES.get(name) else "")


def with_article(name: str) -> str:
    """The name of a class, or words for what is wanted, after "a" or "an"."""
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


def _hint(kind: ast.expr, value: Any) -> str:
    """What to write instead, where that is known."""
    names = {node.id for node in ast.walk(kind) if isinstance(node, ast.Name)}
    if isinstance(kind, ast.Subscript):
        if isinstance(value, str) and "Head" in names:
            return f"[Head.parse({value!r})]"
        return f"[{value!r}]" if not _is_collection(value) and _matches(kind.slice, value) else ""
    if "Head" in names:
        return "Head(5, 1) is L5H1"
    if "ModelFacts" in names and _is(value, "Model"):
        return "pass model.facts"
    if "Model" in names and not isinstance(value, str):
        made = _is(getattr(value, "model", None), "Model")
        return "pass its .model" if made else "interp.models.wrap_model makes one of a Hugging Face model"
    calls = {
        "Model": "interp.load_model({!r})",
        "Task": "interp.make_task({!r}, model)",
        "Detection": "interp.detect(model, {!r})",
    }
    return next((call.format(value) for name, call in calls.items() if name in names and isinstance(value, str)), "")


_CHECKED: dict[Callable[..., Any], Any] = {}
_PLAIN: dict[str, Any] = {"str": str, "int": Integral, "float": Real, "Path": os.PathLike, "PathLike": os.PathLike}
_SOURCES = {
    "Model": "load_model",
    "ModelFacts": "Model.facts",
    "Task": "make_task or task_from_jsonl",
    "Head": "",
    "HeadScores": "",
    "AttentionMetric": "",
    "Intervention": "",
    "AblationResult": "ablate_heads",
    "Observation": "observe_attention",
    "Detection": "detect",
    "TokenDetection": "detect",
    "Confirmation": "confirm",
    "EdgeScores": "score_edges",
    "FaithfulnessCurve": "faithfulness_curve",
    "Circuit": "",
    "StoredRun": "open_run",
}
"""Classes that are checked, and the function that returns one where the sentence should name it."""
