"""A head, and one number per head or per token.

Heads are query heads, counted from 0 and written ``L5H1``. Effects are ``metric(changed) - metric(clean)``: negative = the head helped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from interp._short_repr import short_repr, table_html
from interp.files import encodable
from interp.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd


class Head(NamedTuple):
    """A query head, both indices from 0. Prints as ``L5H1``."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head written as ``L5H1``, ``5.1`` or ``5-1``. Raises ValueError for anything else."""
        match = re.fullmatch(r"[Ll]?(\d+)\s*(?:[Hh]|[.-])\s*(\d+)", text.strip())
        if not match:
            raise ValueError(f"{text!r} is not a head: write L5H1, 5.1 or 5-1 (layer, head; both from 0).")
        return cls(int(match[1]), int(match[2]))


@short_repr
@dataclass(frozen=True, eq=False)
class HeadScores:
    """One number per head.

    ``values`` has shape [n_layers, n_heads], with NaN for heads that were not measured or have no value (``nan_reason``). ``unit`` and
    ``bounds`` (inclusive, None = unbounded) belong to the value; ``record`` states how it was computed. Raises ValueError for infinite
    values, values out of bounds, and no value at all without a reason.
    """

    name: str
    values: np.ndarray
    unit: str
    bounds: tuple[float | None, float | None]
    record: RunRecord
    nan_reason: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"HeadScores {self.name!r} needs values [n_layers, n_heads], not shape {self.values.shape}.")
        _check_numbers(f"HeadScores {self.name!r}", self.values, self.bounds, self.nan_reason)

    def __getitem__(self, head: Head | tuple[int, int]) -> float:
        return float(self.values[head[0], head[1]])

    def top(self, k: int, *, by: str = "magnitude") -> list[Head]:
        """The first ``k`` heads that have a value, by ``magnitude`` or ``highest`` or ``lowest`` value; ties keep the order of heads."""
        keys = {"magnitude": -np.abs(self.values), "highest": -self.values, "lowest": self.values}
        if by not in keys:
            raise ValueError(f"by={by!r} is not an order. There are: {', '.join(keys)}.")
        flat = keys[by].ravel()
        order = [i for i in np.argsort(flat, kind="stable") if not np.isnan(flat[i])]
        return [Head(*divmod(int(i), self.values.shape[1])) for i in order[: max(0, k)]]

    def to_dataframe(self) -> pd.DataFrame:
        """Long table with columns layer, head, label, metric, value, unit."""
        import pandas as pd

        layers, heads = np.indices(self.values.shape)
        frame = pd.DataFrame({"layer": layers.ravel().astype("int32"), "head": heads.ravel().astype("int32")})
        labels = [str(Head(*pair)) for pair in zip(frame["layer"], frame["head"], strict=True)]
        return frame.assign(label=labels, metric=self.name, value=self.values.ravel().astype("float64"), unit=self.unit)

    def plot(self, **options: Any) -> Any:
        """Layer x head heat map (a plotly figure); options as in ``interp.figures.head_map``."""
        return import_module("interp.figures").head_map(self, **options)

    def save(self, folder: str | Any) -> Any:
        """Writes the values with their record to a run directory and returns its path."""
        return import_module("interp.store").save_scores(self, folder)

    def _repr_html_(self) -> str:
        return table_html(repr(self), self.to_dataframe().pivot(index="layer", columns="head", values="value"))


@short_repr
@dataclass(frozen=True, eq=False)
class TokenScores:
    """One number per token: ``values`` and ``tokens`` have shape [batch, pos]; the other fields are those of ``HeadScores``."""

    name: str
    values: np.ndarray
    tokens: tuple[tuple[str, ...], ...]
    unit: str
    bounds: tuple[float | None, float | None]
    record: RunRecord
    example: tuple[int, ...] = ()
    nan_reason: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.tokens), len(self.tokens[0]) if self.tokens else 0)
        if self.values.shape != shape:
            raise ValueError(f"TokenScores {self.name!r} has values of shape {self.values.shape} for tokens of shape {shape}.")
        _check_numbers(f"TokenScores {self.name!r}", self.values, self.bounds, self.nan_reason)

    def top(self, k: int) -> list[tuple[int, int]]:
        """The ``k`` (batch, pos) cells with the largest values, in order."""
        values = self.values.ravel()
        order = [int(i) for i in np.argsort(-values, kind="stable") if not np.isnan(values[i])]
        return [divmod(i, self.values.shape[1]) for i in order[: max(0, k)]]

    def to_dataframe(self) -> pd.DataFrame:
        """Long table with columns example, pos, token, metric, value, unit; lone surrogates in tokens are escaped."""
        import pandas as pd

        batch, pos = np.indices(self.values.shape)
        tokens = [encodable(token) for row in self.tokens for token in row]
        frame = pd.DataFrame({"example": batch.ravel().astype("int32"), "pos": pos.ravel().astype("int32"), "token": tokens})
        return frame.assign(metric=self.name, value=self.values.ravel().astype("float64"), unit=self.unit)


def _check_numbers(what: str, values: np.ndarray, bounds: tuple[float | None, float | None], nan_reason: str) -> None:
    if np.isinf(values).any():
        raise ValueError(f"{what} has infinite values: correct the function that computed them.")
    if not (nan_reason or np.isfinite(values).any()):
        raise ValueError(
            f"{what} has no value at all, and no reason for it: correct its function, or say when it has none (``undefined`` of an "
            f"AttentionMetric)."
        )
    if np.isnan(values).all():
        return
    low, high = bounds
    if (low is not None and np.nanmin(values) < low - 1e-6) or (high is not None and np.nanmax(values) > high + 1e-6):
        found = f"has values from {np.nanmin(values):g} to {np.nanmax(values):g}"
        raise ValueError(f"{what} {found}, outside its bounds {bounds}: correct its function or its bounds.")
