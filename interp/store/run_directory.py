"""Run directories: started, resumed, finished and opened again.

A run directory holds ``run.json`` (the manifest), one Parquet file a table (``heads``, ``examples`` ...), arrays as safetensors and, while
the run is under way, ``units/`` with the work that is done. Tables are published first, then the manifest that names them, then the
units go: a process killed in between leaves a run that resumes and ends in the same bytes.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp._short_repr import table_html
from interp.errors import ArtefactInvalid
from interp.files import remove_temporary_files, sha256, write_atomically
from interp.heads import HeadScores, TokenScores
from interp.records import RunRecord, digest
from interp.store import manifest as manifests
from interp.store.parquet import from_parquet, to_parquet
from interp.store.unit_ledger import FileLedger

if TYPE_CHECKING:
    import pandas as pd

LOCK = ".lock"
UNITS = "units"
OURS = (LOCK, UNITS)


@dataclass(frozen=True)
class StoredRun:
    """A run directory as it was when it was opened."""

    path: Path
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        model = (self.manifest["record"] or self.spec).get("model", "")
        return f"StoredRun({str(self.path)!r}, {self.status}, kind={self.kind!r}, model={model!r})"

    def _repr_html_(self) -> str:
        tables = [name for name in ("heads", "sets", "tokens", "edges") if f"{name}.parquet" in self.manifest["files"]]
        return (
            table_html(repr(self), self.table(tables[0]))
            if tables and self.status == "finished"
            else f"<p>{escape(repr(self))}</p>"
        )

    @property
    def kind(self) -> str:
        """What was run: ``ablation``, ``attention``, ``detection``, ``confirmation``, ``circuit`` or ``scores``."""
        return str(self.manifest["details"].get("kind") or self.spec.get("kind") or "")

    @property
    def status(self) -> str:
        """``running`` (also after a kill: it can be resumed), ``finished`` or ``failed``."""
        return self.manifest["status"]

    @property
    def spec(self) -> dict[str, Any]:
        return self.manifest["spec"]

    @property
    def record(self) -> RunRecord:
        """How the numbers were made. Raises ArtefactInvalid before the run is finished."""
        self._need_finished()
        try:
            return RunRecord.from_json(self.manifest["record"])
        except (TypeError, KeyError) as error:
            raise ArtefactInvalid(f"{self.path / manifests.NAME}: its record is damaged ({error}).") from None

    def heads(self) -> pd.DataFrame:
        """One row per head (or pair): effect, interval, p, q, control."""
        return self.table("heads")

    def examples(self) -> pd.DataFrame:
        """One row per head (or pair) and example: value, baseline, effect."""
        return self.table("examples")

    def table(self, name: str) -> pd.DataFrame:
        """A stored table. Raises ArtefactInvalid when it is missing or not the file that the run wrote, LookupError for other names."""
        return from_parquet(self._read(name, ".parquet", "table"))

    def arrays(self, name: str = "values") -> dict[str, np.ndarray]:
        """Stored arrays by name: of an observation every metric as it was read, [n_layers batch head axis]. Raises as ``table``."""
        from safetensors.numpy import load

        return load(self._read(name, ".safetensors", "file of arrays"))

    def json_file(self, name: str) -> Path:
        """Where a stored JSON file lies. Raises as ``table``."""
        self._read(name, ".json", "JSON file")
        return self.path / f"{name}.json"

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """What is known of each metric of an observation (label, unit, bounds, nan_reason ...), by its name; empty for a sweep."""
        return self.manifest["details"].get("metrics", {})

    def scores(self, name: str | None = None) -> HeadScores:
        """One number per head from the ``heads`` table: a metric of an observation or of saved scores (default: the first), the effect of a
        sweep or any other column of its numbers. Raises LookupError for a name that is not there."""
        from interp.ablation.effect_tables import head_scores

        shape = self.manifest["details"]["shape"]
        if not self.metrics:
            return head_scores(self.heads(), self.record, shape, name or "effect")
        rows, about, record = self._metric_rows("heads", name)
        return head_scores(rows, record, shape, "value", tuple(about["bounds"]), about["nan_reason"])

    def token_scores(self, name: str | None = None) -> TokenScores:
        """A metric of an observation (default: the first that has one number a token) as the mean over all heads, [batch pos]; padding is
        NaN. Raises LookupError for a metric that is not there."""
        rows, about, record = self._metric_rows("tokens", name)
        place = rows["example"].to_numpy(), rows["pos"].to_numpy()
        size = tuple(int(side.max()) + 1 for side in place)
        values, words = np.full(size, np.nan), np.full(size, "", dtype=object)
        values[place], words[place] = rows["value"], rows["token"]
        facts = {"unit": about["unit"], "bounds": tuple(about["bounds"]), "nan_reason": about["nan_reason"]}
        return TokenScores(about["name"], values, tuple(map(tuple, words.tolist())), record=record, **facts)

    def _metric_rows(self, table: str, name: str | None) -> tuple[pd.DataFrame, dict[str, Any], RunRecord]:
        """The rows of one metric in a table, what is known of it, and its record."""
        rows = self.table(table)
        there = set(rows["metric"])
        known = [metric for metric in self.metrics if metric in there]
        chosen = name or known[0]
        if chosen not in known:
            raise LookupError(f"The {table} of {self.path} have no metric {chosen!r}. There are: {', '.join(known)}.")
        about = {"name": chosen, **self.metrics[chosen]}
        return rows.query("metric == @chosen"), about, replace(self.record, metric=about["label"])

    def _read(self, name: str, ending: str, noun: str) -> bytes:
        self._need_finished()
        files, file = self.manifest["files"], f"{name}{ending}"
        if file not in files:
            known = ", ".join(Path(other).stem for other in sorted(files) if other.endswith(ending)) or "none"
            raise LookupError(f"{self.path} has no {noun} {name!r}. There are: {known}.")
        try:
            content = (self.path / file).read_bytes()
        except OSError as error:
            raise ArtefactInvalid(f"{self.path / file} cannot be read ({error.strerror}).") from None
        if sha256(content) != files[file]:
            raise ArtefactInvalid(
                f"{self.path / file} is not the file that the run wrote: its SHA-256 differs from {manifests.NAME}."
            )
        return content

    def _need_finished(self) -> None:
        if self.status != "finished":
            reason = f" ({self.manifest['error']})" if self.manifest["error"] else ""
            raise ArtefactInvalid(
                f"{self.path} is not finished: its status is {self.status!r}{reason}. Run the same command again to resume it."
            )


class RunWriter:
    """The one process that writes a run directory, between ``with start_run(...) as writer:`` and the end of the block.

    ``finished`` says that there is nothing left to do. An exception marks the run as failed; it can still be resumed.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], lock: Any) -> None:
        self.path, self._manifest, self._lock = path, manifest, lock
        self.ledger = FileLedger(path / UNITS, manifest["code_version"])
        self._before, self._start = self.ledger.seconds(), time.monotonic()

    @property
    def finished(self) -> bool:
        return self._manifest["status"] == "finished"

    @property
    def run_id(self) -> str:
        """The same for equal specs, so that equal runs write equal tables."""
        return self._manifest["run_id"]

    @property
    def details(self) -> dict[str, Any]:
        """The details that this run was begun with, which the stored units rest on."""
        return self._manifest["details"]

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a table under this name; it belongs to the run once ``finish`` is called."""
        self._publish(f"{name}.parquet", to_parquet(table))

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes arrays under this name as one safetensors file; it belongs to the run once ``finish`` is called."""
        from safetensors.numpy import save

        self._publish(f"{name}.safetensors", save({key: np.ascontiguousarray(values) for key, values in arrays.items()}))

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Writes a JSON file under this name; it belongs to the run once ``finish`` is called."""
        self._publish(f"{name}.json", json.dumps(values, allow_nan=False, indent=1).encode())

    def finish(self, record: RunRecord, **details: Any) -> StoredRun:
        """Closes the run: the manifest names its tables, its record and ``details`` (``shape``: n_layers, n_heads); the units go."""
        seconds = round(self._before + time.monotonic() - self._start, 3)
        closing = {
            "status": "finished",
            "error": None,
            "record": record.to_json(),
            "finished": manifests.now(),
            "seconds": seconds,
        }
        self._update(**closing, details={**self.details, **details})
        self.ledger.clear()
        return StoredRun(self.path, dict(self._manifest))

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if isinstance(error, Exception) and not self.finished:
                self._update(status="failed", error=f"{type(error).__name__}: {error}")
        except OSError:  # the disk that failed the run may refuse this line too; the first error is the one to show
            pass
        finally:
            self._lock.release()

    def _publish(self, file: str, content: bytes) -> None:
        write_atomically(self.path / file, content)
        self._manifest["files"][file] = sha256(content)

    def _update(self, **fields: Any) -> None:
        changed = {**self._manifest, **fields}
        manifests.write(self.path, changed)
        self._manifest = changed


def start_run(path: str | Path, spec: dict[str, Any], **details: Any) -> RunWriter:
    """A writer for a new run directory, or for the run of the same spec that was interrupted there (nothing done is lost).

    ``details`` say how the work is cut (``memory``), which is no part of what the run is: a run that has units keeps the details it
    was begun with, and ``writer.details`` says which those are. Raises ArtefactInvalid when the folder holds something else or
    another process is writing it; what is there stays untouched.
    """
    folder = Path(path)
    lock = _lock(folder)
    try:
        manifest = _claim(folder, spec)
        remove_temporary_files(folder)
        remove_temporary_files(folder / UNITS)
        if manifest["status"] != "finished":
            fresh = {"status": "running", "error": None, "code_version": manifests.code_version(), "files": {}}
            manifest = {**manifest, **fresh, "details": {**details, **_stored_details(folder, manifest)}}
            manifests.write(folder, manifest)
        writer = RunWriter(folder, manifest, lock)
        if writer.finished:
            writer.ledger.clear()
        return writer
    except BaseException:
        lock.release()
        raise


def finished_run(path: str | Path, spec: dict[str, Any]) -> StoredRun | None:
    """The finished run of this spec in this directory, None where it is still to be made.

    Raises ArtefactInvalid when the folder holds something else, so that this is known before anything is computed.
    """
    folder = Path(path)
    _refuse_file(folder)
    manifest = _claim(folder, spec) if folder.exists() else {"status": "running"}
    return StoredRun(folder, manifest) if manifest["status"] == "finished" else None


def stored_details(path: str | Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The details that ``start_run`` would keep, whatever others it is given; empty where nothing is measured yet.

    Raises ArtefactInvalid when the folder holds something else.
    """
    folder = Path(path)
    _refuse_file(folder)
    return _stored_details(folder, _claim(folder, spec)) if folder.exists() else {}


def open_run(path: str | Path) -> StoredRun:
    """The run stored in this directory. Raises ArtefactInvalid when there is none that this version can read."""
    folder = Path(path)
    return StoredRun(folder, manifests.read(folder))


def _lock(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    _refuse_file(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LOCK).exists():
        _refuse_foreign_files(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ArtefactInvalid(f"Another process is writing {folder}: wait for it to end, or choose another folder.") from None
    return lock


def _claim(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The manifest to go on with; refuses folders that belong to something else."""
    if not (folder / manifests.NAME).exists():
        _refuse_foreign_files(folder)
        return manifests.new(spec)
    manifest = manifests.read(folder)
    if manifest["spec_digest"] != digest(spec):
        raise ArtefactInvalid(
            f"{folder} holds another run ({_difference(manifest['spec'], spec)}). Nothing was changed: "
            f"choose another folder or delete this one."
        )
    return manifest


def _stored_details(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The details of a run that is finished or has units."""
    begun = manifest["status"] == "finished" or FileLedger(folder / UNITS, manifests.code_version()).count()
    return manifest["details"] if begun else {}


def _refuse_file(folder: Path) -> None:
    if folder.is_file():
        raise ArtefactInvalid(f"{folder} is a file: give a folder for the run.")


def _refuse_foreign_files(folder: Path) -> None:
    """Raises ArtefactInvalid for a folder with files that no run wrote."""
    strangers = sorted(
        f.name for f in folder.iterdir() if f.name not in (*OURS, manifests.NAME) and not f.name.endswith(".tmp")
    )
    if strangers:
        raise ArtefactInvalid(
            f"{folder} is not empty and not a run directory (it holds {strangers[0]}): choose another folder."
        )


def _difference(stored: dict[str, Any], asked: dict[str, Any]) -> str:
    names = [name for name in sorted({*stored, *asked}) if digest([stored.get(name)]) != digest([asked.get(name)])]
    return ", ".join(f"{name} is {stored.get(name)!r}, asked for {asked.get(name)!r}" for name in names[:3])
