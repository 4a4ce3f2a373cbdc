"""What results of this room have in common: a table, and a figure made from it."""

from importlib import import_module
from typing import Any, ClassVar

import pandas as pd


class TableResult:
    """A result whose numbers are one table."""

    table: pd.DataFrame

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of ``table``."""
        return self.table.copy()


class PlottedResult:
    """A result with a figure in ``interp.figures``."""

    figure: ClassVar[str]

    def plot(self, **options: Any) -> Any:
        """The figure of this result (plotly); options as in ``interp.figures`` under the name of ``figure``."""
        return getattr(import_module("interp.figures"), self.figure)(self, **options)
