"""Completed units of work: one small safetensors file each, named after a digest of the unit's key and of the code version.

A run resumed by other code (package versions, commit) computes again. A damaged or foreign file counts as absent.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from interp.files import sha256, write_atomically
from interp.records import digest


class FileLedger:
    """The completed units of one run directory; a sweep uses only ``get`` and ``put``."""

    def __init__(self, folder: Path, code_version: dict[str, Any]) -> None:
        self.folder, self._code_version = folder, digest(code_version)
        self._since = time.monotonic()

    def get(self, key: str) -> np.ndarray | None:
        """The stored values of this unit, or None if it must be computed."""
        unit = _read(self._path(key))
        return unit[0] if unit and unit[1]["key"] == key else None

    def put(self, key: str, values: np.ndarray) -> None:
        """Stores the values of a unit with the seconds since the previous one."""
        from safetensors.numpy import save

        now = time.monotonic()
        values = np.ascontiguousarray(values)
        facts = {"key": key, "sha256": sha256(values.tobytes()), "seconds": repr(now - self._since)}
        self.folder.mkdir(exist_ok=True)
        write_atomically(self._path(key), save({"values": values}, metadata=facts))
        self._since = now

    def seconds(self) -> float:
        """Seconds that these units took, over all processes that worked on the run."""
        return sum((facts["seconds"] for _, facts in self._units()), 0.0)

    def count(self) -> int:
        """Number of units that ``get`` would find. Not ``__len__``, which would make an empty ledger false."""
        return sum(1 for _ in self._units())

    def clear(self) -> None:
        """Removes all units, once the tables of the run are written."""
        for file in self.folder.glob("*"):
            file.unlink()
        if self.folder.exists():
            self.folder.rmdir()

    def _path(self, key: str) -> Path:
        return self.folder / f"{digest([key, self._code_version])}.safetensors"

    def _units(self) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """The units of this code version, without those that other code left in the folder."""
        stored = ((path, _read(path)) for path in sorted(self.folder.glob("*.safetensors")))
        return (unit for path, unit in stored if unit and path == self._path(unit[1]["key"]))


def _read(path: Path) -> tuple[np.ndarray, dict[str, Any]] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            values, facts = file.get_tensor("values"), file.metadata() or {}
        facts = {"key": facts["key"], "sha256": facts["sha256"], "seconds": float(facts["seconds"])}
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    return (values, facts) if facts["sha256"] == sha256(values.tobytes()) else None
