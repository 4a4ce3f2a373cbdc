"""Checks of the annotations of interp at every call that a test makes, at a fraction of what jaxtyping's own hook takes.

jaxtyping binds the arguments of every function to keep its named axes, and compiles two checks whenever a function is defined, one
inside another function at every call of that. Here axes are kept for functions that name arrays only, and checks are compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from inspect import isclass
from types import FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

_jaxtyped = jaxtyping.jaxtyped
_without_axes = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))
_compiled: dict[tuple, Callable] = {}


def checked(function: FunctionType) -> Callable:
    """``beartype(function)``, for the functions without a body that jaxtyping makes: once for those with equal signatures."""
    key = (function.__module__, function.__qualname__, function.__code__, tuple(function.__annotations__.items()))
    try:
        return _compiled[key]
    except KeyError:
        return _compiled.setdefault(key, beartype(function))
    except TypeError:  # an annotation that cannot be hashed
        return beartype(function)


def names_arrays(annotation: Any) -> bool:
    """Whether an annotation has an array with axes anywhere inside it."""
    if isinstance(annotation, list):  # the arguments of a Callable
        return any(map(names_arrays, annotation))
    if isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(names_arrays, get_args(annotation)))


def _has_axes(function: FunctionType) -> bool:
    try:
        return any(map(names_arrays, get_type_hints(function, include_extras=True).values()))
    except Exception:  # names for type checkers alone: jaxtyping leaves those out one by one
        return True


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """``jaxtyping.jaxtyped`` where axes are named, beartype alone elsewhere."""
    if function is None:
        return partial(jaxtyped, typechecker=typechecker)
    if isclass(function):
        own = vars(function).get("__init__")
        if not is_dataclass(function) or not isinstance(own, FunctionType) or _has_axes(own):
            return _jaxtyped(function, typechecker=typechecker)
        function.__init__ = _without_axes(own)
        return function
    if not isinstance(function, FunctionType) or _has_axes(function):
        return _jaxtyped(function, typechecker=typechecker)
    if not function.__annotations__:
        return function
    if function.__qualname__.endswith(f"<locals>.{function.__name__}"):
        return _jaxtyped(function, typechecker=typechecker)  # its check is compiled at the first definition
    return _without_axes(function)
