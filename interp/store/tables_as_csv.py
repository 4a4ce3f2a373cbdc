"""Tables as CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.files import encodable

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(table: pd.DataFrame) -> str:
    """The table as CSV without its index; text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe, and lone
    surrogates are escaped."""
    return table.map(_safe_cell).to_csv(index=False, lineterminator="\n")


def _safe_cell(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = encodable(cell)
    return f"'{text}" if text.startswith(FORMULA) else text
