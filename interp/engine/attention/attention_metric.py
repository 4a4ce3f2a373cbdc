"""A metric of attention: a named function of attention rows, with unit, bounds and parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

from torch import Tensor

from interp.registry import check_options

PLURALS = {"queries": "query", "keys": "key"}


@dataclass(frozen=True)
class AttentionMetric:
    """A named function of attention rows.

    ``axis`` tells what ``function(rows, **parameters)`` returns. ``query``: one number for each row, [batch head query], NaN
    where a row has none. Anything else is summed over the blocks, and the function returns (sum, count), both broadcastable to
    [batch head axis]; the value is their ratio, NaN where the count is 0: ``key`` has one entry for each column of
    ``rows.keys``, other axes (``hop``, ``head`` ...) are small tables of their own. ``finish(values, prompts, **parameters)``
    may turn the finished table [n_layers batch head axis] into another, and ``per_head`` into [n_layers head]; by default the
    mean over all rows or columns that have a number. ``all_heads``: all heads of a layer must be in one block. ``undefined``
    tells when the value is NaN; ``needs`` lists requirements: ``tokens`` (ids), ``grid`` (patches), ``values``.
    """

    name: str
    axis: str
    unit: str
    bounds: tuple[float | None, float | None]
    function: Callable[..., Any]
    paper: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    undefined: str = ""
    needs: tuple[str, ...] = ()
    all_heads: bool = False
    per_head: Callable[[Tensor], Tensor] | None = None
    finish: Callable[..., Tensor] | None = None

    def __post_init__(self) -> None:
        if self.axis in PLURALS:
            raise ValueError(f"Metric {self.name!r} has axis={self.axis!r}: write {PLURALS[self.axis]!r}.")
        try:
            signature(self.function).bind(None, **self.parameters)
        except TypeError as error:
            raise ValueError(
                f"The function of metric {self.name!r} takes the rows and its parameters, and does not: {error}."
            ) from error

    def set(self, **parameters: Any) -> "AttentionMetric":
        """The same metric with other parameters. Raises LookupError for an unknown parameter."""
        check_options(parameters, self.parameters, f"Metric {self.name!r}")
        return replace(self, parameters={**self.parameters, **parameters})

    @property
    def label(self) -> str:
        """The name with its nonempty parameters."""
        inside = ", ".join(f"{name}={value}" for name, value in self.parameters.items() if value not in ((), None, ""))
        return f"{self.name}({inside})" if inside else self.name
