"""Options of a detector as one frozen dataclass, still given as keywords."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar

Result = TypeVar("Result")


def keyword_options(options: type) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """A decorator that turns ``function(model, options, *, ...)`` into ``function(model, *, one keyword per field, ...)``."""

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        whole = signature(function)
        model, _, *others = whole.parameters.values()
        own = [Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type) for f in fields(options)]
        names = {parameter.name for parameter in own}

        @wraps(function)
        def detector(model: Any, **arguments: Any) -> Result:
            given = {name: arguments.pop(name) for name in names & arguments.keys()}
            return function(model, options(**given), **arguments)

        detector.__dict__["__signature__"] = whole.replace(parameters=[model, *own, *others])
        return detector

    return decorate
