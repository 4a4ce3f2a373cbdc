"""Units of work that are done: one small safetensors file each, named by what it answers.

The name is a digest of the unit's key and of the code that computed it (package versions and commit), so a run that is resumed
by other code finds nothing and computes again. A file that is damaged, cut short or about another key counts as absent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from interp.files import sha256, write_atomically
from interp.records import digest


class FileLedger:
    """The units of one run directory. ``get`` and ``put`` are all that a sweep needs to know."""

    def __init__(self, folder: Path, code_version: dict[str, Any]) -> None:
        self.folder, self._code_version = folder, digest(code_version)
        self._since = time.monotonic()

    def get(self, key: str) -> np.ndarray | None:
        """The stored values of this unit, or None when it must be computed."""
        found = _read(self._path(key))
        return found[0] if found and found[1]["key"] == key else None

    def put(self, key: str, values: np.ndarray) -> None:
        """Stores the values of a unit, with the seconds since the unit before it."""
        from safetensors.numpy import save

        now = time.monotonic()
        values = np.ascontiguousarray(values)
        facts = {"key": key, "sha256": sha256(values.tobytes()), "seconds": repr(now - self._since)}
        self.folder.mkdir(exist_ok=True)
        write_atomically(self._path(key), save({"values": values}, metadata=facts))
        self._since = now

    def seconds(self) -> float:
        """Seconds of work that these units took, over all processes that worked on this run."""
        return sum((float(facts["seconds"]) for _, facts in self._units()), 0.0)

    def count(self) -> int:
        """How many units ``get`` would find. Not ``len``: an empty ledger is a ledger and must not be false."""
        return sum(1 for _ in self._units())

    def clear(self) -> None:
        """Removes all units; for a run whose tables are published."""
        for file in self.folder.glob("*"):
            file.unlink()
        if self.folder.exists():
            self.folder.rmdir()

    def _path(self, key: str | None) -> Path:
        return self.folder / f"{digest([key, self._code_version])}.safetensors"

    def _units(self) -> Iterator[tuple[np.ndarray, dict[str, str]]]:
        """Those of this code; what other code has left in the folder is not counted."""
        found = ((path, _read(path)) for path in sorted(self.folder.glob("*.safetensors")))
        return (unit for path, unit in found if unit and path == self._path(unit[1].get("key")))


def _read(path: Path) -> tuple[np.ndarray, dict[str, str]] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            values, facts = file.get_tensor("values"), file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    return (values, facts) if facts.get("sha256") == sha256(values.tobytes()) else None
