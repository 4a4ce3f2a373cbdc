"""Parquet files whose bytes depend only on their content.

Integers are int32, strings are dictionary-encoded, there is no index and no time stamp, so equal tables are equal files (for one
version of pyarrow, which writes its version into each file).
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from interp.errors import ArtefactInvalid, first_line
from interp.files import encodable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BYTES_PER_CELL = 16
"""Of a table in memory: a number, once as Arrow and once as pandas has it."""
SMALL = 1 << 24
"""Cells that are read without a look at the available memory."""

ORDER = ("layer", "head", "layer2", "head2", "example")


def to_parquet(table: pd.DataFrame) -> bytes:
    """The table as a Parquet file, with rows sorted by layer and head, then by the second head and the example if present.

    Raises ArtefactInvalid for a table without rows, with infinite numbers, or with a column that is not numeric, text or boolean.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if table.empty:
        raise ArtefactInvalid("A table without rows is not stored: the run that made it measured nothing.")
    keys = [name for name in ORDER if name in table.columns]
    rows = table.sort_values(keys, kind="stable") if keys else table
    columns = {str(name): _column(str(name), values) for name, values in rows.items()}
    file, data = BytesIO(), pa.table(columns)
    pq.write_table(data, file, compression="zstd", compression_level=3, use_dictionary=True, row_group_size=1 << 20)
    return file.getvalue()


def from_parquet(content: bytes) -> pd.DataFrame:
    """The table of a file made by ``to_parquet``. Starts no threads: one still running at exit aborts the process.

    Raises ArtefactInvalid for a damaged file, MemoryBudgetExceeded for more cells than fit the available memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(BytesIO(content), pre_buffer=False)
        n_rows = max(file.metadata.num_rows, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)), 0)
        if (n_cells := n_rows * file.metadata.num_columns) > SMALL:
            from interp.models.memory import check_budget

            check_budget(BYTES_PER_CELL * n_cells, what=f"A table of {n_rows:,} rows")
        return file.read(use_threads=False).to_pandas(use_threads=False)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactInvalid(f"This is not a Parquet file that interp wrote ({first_line(error)[:200]}).") from error


def _column(name: str, values: pd.Series) -> pa.Array:
    import numpy as np
    import pyarrow as pa
    from pandas.api import types

    if types.is_bool_dtype(values):
        return pa.array(values.to_numpy(), pa.bool_())
    if types.is_integer_dtype(values):
        return pa.array(values.to_numpy(), pa.int32())
    if types.is_float_dtype(values):
        numbers = values.to_numpy(np.float64)
        if np.isinf(numbers).any():
            broken = "the run that made it is broken, nothing was stored"
            raise ArtefactInvalid(f"Column {name!r} holds infinite numbers: {broken}.")
        return pa.array(numbers, pa.float64())
    if types.is_string_dtype(values):
        return pa.array([encodable(value) for value in values], pa.string())
    raise ArtefactInvalid(f"Column {name!r} is of kind {values.dtype}; stored tables hold numbers, text and booleans only.")
