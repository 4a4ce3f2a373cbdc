"""Whether two run directories hold the same numbers: each table column by column and bit by bit, each array likewise.

    python benchmarks/compare_runs.py OLD NEW [--rename old=new ...] [--value old=new ...] [--new column ...]

``--rename`` names columns (or arrays) that have another name in NEW, ``--value`` texts inside cells, ``--new`` columns that OLD lacks.
``run_id`` names the run and is left out. Exits with 1 at the first difference.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file


def pairs(texts: list[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in texts)


def columns_of(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table or the arrays of a file by name."""
    if path.suffix == ".safetensors":
        return load_file(path)
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names if name != "run_id"}


def same(old: np.ndarray, new: np.ndarray, values: dict[str, str]) -> bool:
    """Whether two columns hold the same bits, with texts of the old one replaced by ``values``."""
    if old.dtype == object:
        return [values.get(x, x) if isinstance(x, str) else x for x in old.tolist()] == new.tolist()
    return old.dtype == new.dtype and old.shape == new.shape and old.tobytes() == new.tobytes()


def difference(old: Path, new: Path, rename: dict[str, str], values: dict[str, str], added: set[str]) -> str:
    """The first difference between two files in words, empty where there is none."""
    before, after = columns_of(old), columns_of(new)
    expected = {rename.get(name, name): column for name, column in before.items()}
    if set(after) - added != set(expected):
        return f"{new.name} has {sorted(set(after) - set(expected) - added)} and lacks {sorted(set(expected) - set(after))}"
    unequal = [name for name, column in expected.items() if not same(column, after[name], values)]
    return f"{new.name}: {', '.join(unequal)} differ" if unequal else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    for name in ("rename", "value", "new"):
        parser.add_argument(f"--{name}", dest=f"{name}_", nargs="*", default=[])
    given = parser.parse_args()
    files = [f for kind in ("parquet", "safetensors") for f in sorted(given.old.glob(f"*.{kind}"))]
    for file in files:
        other = given.new / f"{pairs(given.rename_).get(file.stem, file.stem)}{file.suffix}"
        if not other.exists():
            print(f"{given.new} lacks {other.name}")
            return 1
        if found := difference(file, other, pairs(given.rename_), pairs(given.value_), set(given.new_)):
            print(found)
            return 1
        print(f"{other.name}: the same {len(columns_of(file))} columns")
    return 0 if files else 1


if __name__ == "__main__":
    sys.exit(main())
