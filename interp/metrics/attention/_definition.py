"""The definition of an attention metric: a function of attention rows with the name of its file, decorated."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from interp.engine.attention.attention_observer import AttentionMetric


def attention_metric(
    *, axis: str, unit: str, bounds: tuple[float | None, float | None], paper: str, **fields: Any
) -> Callable[[Callable[..., Any]], AttentionMetric]:
    """A decorator that turns a function into an ``AttentionMetric`` whose parameters are the arguments with a default.

    ``fields`` are further fields of ``AttentionMetric``.
    """

    def decorate(function: Callable[..., Any]) -> AttentionMetric:
        arguments = signature(function).parameters.values()
        parameters = {a.name: a.default for a in arguments if a.default is not a.empty}
        return AttentionMetric(function.__name__, axis, unit, bounds, function, paper, parameters, **fields)

    return decorate
