"""Parquet files whose bytes depend only on their content.

Integers are int32, strings are dictionary-encoded, there is no index and no time stamp, so equal tables are equal files (for one
version of pyarrow, which writes its version into each file).
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from interp.errors import ArtefactInvalid

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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
    """The table of a file made by ``to_parquet``. Starts no threads: one still running at exit aborts the process."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(BytesIO(content), pre_buffer=False).read(use_threads=False).to_pandas(use_threads=False)


def encodable(value: Any) -> str:
    """The value as text that has a UTF-8 form: lone surrogates are escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode()


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
