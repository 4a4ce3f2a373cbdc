"""Short forms of results in notebooks and sessions: what each holds and how large it is, never the numbers themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from html import escape
from pathlib import PurePath
from typing import Any, TypeVar

C = TypeVar("C", bound=type)
MAX_CHARACTERS = 200
MAX_ITEMS = 4
MAX_ROWS = 20


def short_repr(cls: C) -> C:
    """The dataclass with a ``repr`` of at most 200 characters and, unless it has one, an HTML form: its table, else its fields."""
    cls.__repr__ = _one_line  # type: ignore[method-assign]
    if not hasattr(cls, "_repr_html_"):
        cls._repr_html_ = _html  # type: ignore[attr-defined]
    return cls


def table_html(title: str, table: Any) -> str:
    """An HTML table below its title; of a long one the first and last rows."""
    return f"<p>{escape(title)}</p>" + table.to_html(max_rows=MAX_ROWS, float_format="{:.3g}".format)


def brief(value: Any) -> str:
    """A value in a few characters: arrays and tables by kind and size, collections by length, records by model."""
    if hasattr(value, "columns"):
        return f"table[{' x '.join(map(str, value.shape))}]"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, str | PurePath):
        text = str(value)
        return repr(text if len(text) <= 60 else f"{text[:57]}...")
    if value is None or isinstance(value, bool | int):
        return repr(value)
    if isinstance(value, Collection) and type(value).__str__ is object.__str__:
        return _collection(value)
    if isinstance(value, tuple):
        return str(value)[:40]
    name = getattr(value, "model", None)
    return repr(name) if type(value).__name__ == "RunRecord" else type(value).__name__


def _collection(value: Collection[Any]) -> str:
    if len(value) > MAX_ITEMS or not all(isinstance(item, str | float | int | None) for item in value):
        return f"{len(value)} items"
    inside = ", ".join(str(item) if isinstance(value, Mapping) else brief(item) for item in value)
    return f"{{{inside}}}" if isinstance(value, Mapping) else f"({inside})"


def _described(result: Any) -> dict[str, str]:
    """The fields that hold something, by name."""
    values = {f.name: getattr(result, f.name) for f in fields(result) if not f.name.startswith("_")}
    return {name: brief(value) for name, value in values.items() if not (isinstance(value, Collection) and not len(value))}


def _one_line(self: Any) -> str:
    text = f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in _described(self).items())})"
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 4]}...)"


def _html(self: Any) -> str:
    import pandas as pd

    table = self.to_dataframe() if hasattr(self, "to_dataframe") else getattr(self, "table", None)
    if table is None:
        table = pd.DataFrame({"value": _described(self)})
    return table_html(repr(self), table)
