"""The definition of an attention metric: a decorated function of attention rows with the name of its file."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from interp.engine.attention.attention_metric import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows as AttentionRows

Bounds = tuple[float | None, float | None]


def attention_metric(
    axis: str, unit: str = "weight", bounds: Bounds = (0.0, 1.0), *, paper: str, **fields: Any
) -> Callable[[Callable[..., Any]], AttentionMetric]:
    """A decorator that turns a function into an ``AttentionMetric`` whose parameters are the arguments with a default.
    ``fields`` are further fields of ``AttentionMetric``."""

    def decorate(function: Callable[..., Any]) -> AttentionMetric:
        parameters = {p.name: p.default for p in signature(function).parameters.values() if p.default is not p.empty}
        return AttentionMetric(function.__name__, axis, unit, bounds, function, paper, parameters, **fields)

    return decorate
