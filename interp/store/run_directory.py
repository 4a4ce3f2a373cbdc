"""Run directories: start, resume, finish and open them.

A run directory holds ``run.json`` (the manifest), one Parquet file per table (``heads``, ``examples`` ...), arrays as safetensors, and
``units/`` with the completed units of work until the run is finished. Tables are written first, then the manifest that names them; then
the units are removed. A process killed at any point leaves a run that resumes and ends in the same bytes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp._short_repr import table_html
from interp.errors import ArtefactInvalid, first_line, value_text
from interp.files import TEMPORARY_SUFFIX, error_reason, remove_temporary_files, sha256, user_path, write_atomically
from interp.heads import HeadScores, TokenScores
from interp.records import RunRecord, digest
from interp.store import manifest as manifests
from interp.store.deterministic_parquet import from_parquet, to_parquet
from interp.store.unit_ledger import FileLedger

if TYPE_CHECKING:
    import pandas as pd

LOCK = ".lock"
UNITS = "units"
MAX_HEADS = 1 << 20
OWN_FILES = (LOCK, UNITS, manifests.NAME)
DIGESTS = ("examples", "test_examples", "tokens", "detection", "weights_digest")
"""Fields of a specification whose values tell a reader nothing."""
COMMANDS = {"ablation": "ablate", "detection": "detect", "confirmation": "confirm"}
"""The command that writes a kind of run, where it has another name."""


@dataclass(frozen=True)
class StoredRun:
    """The contents of a run directory at the time it was opened."""

    path: Path
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        model = (self.manifest["record"] or self.spec).get("model", "")
        return f"StoredRun({str(self.path)!r}, {self.status}, kind={self.kind!r}, model={model!r})"

    def _repr_html_(self) -> str:
        tables = [name for name in ("heads", "sets", "tokens", "edges") if f"{name}.parquet" in self.manifest["files"]]
        if not tables or self.status != "finished":
            return f"<p>{escape(repr(self))}</p>"
        return table_html(repr(self), self.table(tables[0]))

    @property
    def kind(self) -> str:
        """What was run: ``ablation``, ``attention``, ``detection``, ``confirmation``, ``circuit`` or ``scores``."""
        return str(self.manifest["details"].get("kind") or self.spec.get("kind") or "")

    @property
    def status(self) -> str:
        """``running`` (also after a kill; the run can be resumed), ``finished`` or ``failed``."""
        return self.manifest["status"]

    @property
    def spec(self) -> dict[str, Any]:
        return self.manifest["spec"]

    @property
    def record(self) -> RunRecord:
        """How the numbers were made. Raises ArtefactInvalid for an unfinished run."""
        self.check_finished()
        with manifests.reading(self.path):
            return RunRecord.from_json(self.manifest["record"])

    def heads(self) -> pd.DataFrame:
        """One row per head (or pair): effect, interval, p, q, control."""
        return self.table("heads")

    def examples(self) -> pd.DataFrame:
        """One row per head (or pair) and example: value, baseline, effect."""
        return self.table("examples")

    def table(self, name: str) -> pd.DataFrame:
        """A stored table. Raises ArtefactInvalid when its file is missing or changed, LookupError for an unknown name."""
        return from_parquet(self._read(name, ".parquet", "table"))

    def arrays(self, name: str = "values") -> dict[str, np.ndarray]:
        """Stored arrays by name; those of an observation are its metrics in full, [n_layers batch head axis]. Raises as ``table``."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content = self._read(name, ".safetensors", "file of arrays")
        try:
            return load(content)
        except (SafetensorError, KeyError, ValueError) as error:
            raise ArtefactInvalid(
                f"{self.path / name}.safetensors is not a file that interp wrote ({first_line(error)})."
            ) from error

    def json_file(self, name: str) -> Path:
        """Path of a stored JSON file. Raises as ``table``."""
        self._read(name, ".json", "JSON file")
        return self.path / f"{name}.json"

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Label, unit, bounds, nan_reason ... of each metric of an observation, by name; empty for an ablation."""
        return self.manifest["details"].get("metrics", {})

    def scores(self, name: str | None = None) -> HeadScores:
        """One number per head from the ``heads`` table: a metric of an observation or of saved scores (default: the first), or a numeric
        column of an ablation (default: the effect). Raises LookupError for an unknown name, and for a run without such numbers."""
        from interp.ablation.effect_tables import head_scores

        self.check_finished()
        with manifests.reading(self.path, looks_up=name is not None or not manifests.has_heads(self.manifest)):
            shape = n_layers, n_heads = self.manifest["details"]["shape"]
            if not 0 < n_layers * n_heads <= MAX_HEADS:
                raise ValueError(f"no model has {n_layers} layers of {n_heads} heads")
            if not self.metrics:
                return head_scores(self.heads(), self.record, shape, name or "effect")
            rows, facts, record = self._metric_rows("heads", name)
            return head_scores(rows, record, shape, "value", tuple(facts["bounds"]), facts["nan_reason"])

    def token_scores(self, name: str | None = None) -> TokenScores:
        """A metric of an observation (default: the first with one number per token), the mean over all heads, [batch pos];
        padding is NaN. Raises LookupError for an unknown metric."""
        self.check_finished()
        with manifests.reading(self.path, looks_up=name is not None):
            rows, facts, record = self._metric_rows("tokens", name)
            cells = rows["example"].to_numpy(), rows["pos"].to_numpy()
            if not all(((axis >= 0) & (axis < len(rows))).all() for axis in cells):  # each text and each position has a row
                raise ValueError("texts or positions of its tokens are not numbered from 0")
            shape = tuple(int(axis.max()) + 1 for axis in cells)
            values, tokens = np.full(shape, np.nan), np.full(shape, "", dtype=object)
            values[cells], tokens[cells] = rows["value"], rows["token"]
            limits = {"unit": facts["unit"], "bounds": tuple(facts["bounds"]), "nan_reason": facts["nan_reason"]}
            return TokenScores(facts["name"], values, tuple(map(tuple, tokens.tolist())), record=record, **limits)

    def _metric_rows(self, table: str, name: str | None) -> tuple[pd.DataFrame, dict[str, Any], RunRecord]:
        """The rows of one metric in a table, its facts, and its record."""
        rows = self.table(table)
        stored = set(rows["metric"])
        known = [metric for metric in self.metrics if metric in stored]
        metric = name or known[0]
        if metric not in known:
            raise LookupError(f"The {table} of {self.path} have no metric {metric!r}. There are: {', '.join(known)}.")
        facts = {"name": metric, **self.metrics[metric]}
        return rows.query("metric == @metric"), facts, replace(self.record, metric=facts["label"])

    def _read(self, name: str, ending: str, noun: str) -> bytes:
        self.check_finished()
        files, file = self.manifest["files"], f"{name}{ending}"
        if file not in files:
            known = ", ".join(Path(other).stem for other in sorted(files) if other.endswith(ending)) or "none"
            raise LookupError(f"{self.path} has no {noun} {name!r}. There are: {known}.")
        try:
            content = (self.path / file).read_bytes()
        except OSError as error:
            raise ArtefactInvalid(f"{self.path / file} cannot be read: {error_reason(error)}.") from None
        if sha256(content) != files[file]:
            reason = f"its SHA-256 differs from the one in {manifests.NAME}"
            raise ArtefactInvalid(f"{self.path / file} is not the file that the run wrote: {reason}.")
        return content

    def check_finished(self) -> None:
        """Raises ArtefactInvalid for an unfinished run."""
        if self.status != "finished":
            reason = f" ({self.manifest['error']})" if self.manifest["error"] else ""
            again = "Correct the cause and run" if self.status == "failed" else "Run"
            status = f"its status is {self.status!r}{reason}. {again} the same command again to resume it."
            raise ArtefactInvalid(f"{self.path} is not finished: {status}")


class RunWriter:
    """The only writer of a run directory, inside ``with start_run(...) as writer:``. Where ``finished`` is True, nothing is
    left to do. What is written under a name becomes part of the run at ``finish``. An exception marks the run as failed; it can
    still be resumed."""

    def __init__(self, path: Path, manifest: dict[str, Any], lock: Any) -> None:
        self.path, self._manifest, self._lock = path, manifest, lock
        self.ledger = FileLedger(path / UNITS, manifest["code_version"])
        self._earlier_seconds, self._start = self.ledger.seconds(), time.monotonic()

    @property
    def finished(self) -> bool:
        return self._manifest["status"] == "finished"

    @property
    def run_id(self) -> str:
        return self._manifest["run_id"]

    @property
    def details(self) -> dict[str, Any]:
        """The details that the run was started with, on which the stored units depend."""
        return self._manifest["details"]

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        self._write(f"{name}.parquet", to_parquet(table))

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        from safetensors.numpy import save

        self._write(f"{name}.safetensors", save({key: np.ascontiguousarray(values) for key, values in arrays.items()}))

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        self._write(f"{name}.json", json.dumps(values, allow_nan=False, indent=1).encode())

    def finish(self, record: RunRecord, **details: Any) -> StoredRun:
        """Finishes the run: the manifest names its files, its record and ``details`` (``shape``: n_layers, n_heads); units are removed."""
        seconds = round(self._earlier_seconds + time.monotonic() - self._start, 3)
        facts = {"record": record.to_json(), "finished": manifests.now(), "seconds": seconds}
        self._update(status="finished", error=None, **facts, details={**self.details, **details})
        self.ledger.clear()
        return StoredRun(self.path, dict(self._manifest))

    def discard(self) -> None:
        """Removes all that an unfinished run has stored, for a request that cannot be carried out; the folder too where nothing else is
        in it."""
        self.ledger.clear()
        written = (file for file in self.path.iterdir() if file.suffix in (".parquet", ".safetensors", ".json"))
        for file in (*written, self.path / LOCK):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if isinstance(error, Exception) and not self.finished and (self.path / manifests.NAME).exists():
                self._update(status="failed", error=f"{type(error).__name__}: {error}")
        except OSError:  # the disk that failed the run may refuse this write too; the first error is the one to show
            pass
        finally:
            self._lock.release()

    def _write(self, file: str, content: bytes) -> None:
        write_atomically(self.path / file, content)
        self._manifest["files"][file] = sha256(content)

    def _update(self, **fields: Any) -> None:
        changed = {**self._manifest, **fields}
        manifests.write(self.path, changed)
        self._manifest = changed


def start_run(path: str | Path, spec: dict[str, Any], **details: Any) -> RunWriter:
    """A writer for a new run directory, or for the interrupted run of the same spec in it (completed units are kept).
    ``details`` say how the work is divided (``memory``) and do not identify it: a run with units keeps those it was started
    with (``writer.details``). A finished run is found without writing, so it may be on a read-only disk. Raises ArtefactInvalid, and
    changes nothing, when the folder holds something else or is being written, OSError where it cannot be written."""
    from filelock import FileLock

    folder = user_path(path)
    lock = FileLock(folder / LOCK, timeout=0)
    manifest = _claim(folder, spec)
    if manifest["status"] == "finished" and not (folder / UNITS).exists():
        return RunWriter(folder, manifest, lock)
    _acquire(lock, folder)
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
    """The finished run of this spec in this directory, or None. Raises ArtefactInvalid when the folder holds something else, OSError
    where an unfinished run could not be written there."""
    folder = user_path(path)
    run = StoredRun(folder, _claim(folder, spec))
    return run if run.status == "finished" else None


def stored_details(path: str | Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The details that ``start_run`` would keep regardless of its arguments; empty where no unit is complete. Raises
    ArtefactInvalid when the folder holds something else."""
    folder = user_path(path)
    return _stored_details(folder, _claim(folder, spec))


def open_run(path: str | Path, kind: str | None = None) -> StoredRun:
    """The run stored in this directory; with ``kind``, only a finished run of that kind. Raises ArtefactInvalid for anything else."""
    folder = user_path(path)
    run = StoredRun(folder, manifests.read(folder))
    if kind is not None:
        run.check_finished()
        if run.kind != kind:
            advice = f"give the directory that `interp {COMMANDS.get(kind, kind)}` wrote"
            raise ArtefactInvalid(f"{folder} is a run of kind {run.kind!r}, not {kind!r}: {advice}.")
    return run


def write_once(folder: str | Path, spec: dict[str, Any], write: Callable[[RunWriter], StoredRun]) -> StoredRun:
    """The finished run of this spec: what is stored in the folder, else what ``write`` writes there. Raises as ``start_run``."""
    with start_run(folder, spec) as writer:
        return open_run(folder) if writer.finished else write(writer)


def _acquire(lock: Any, folder: Path) -> None:
    from filelock import Timeout

    try:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout:
        raise ArtefactInvalid(f"Another process is writing {folder}: wait for it to end, or choose another folder.") from None


def _claim(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The manifest to continue; refuses folders that hold something else or cannot be written."""
    with _writing(folder):
        started = (folder / manifests.NAME).exists()
    if not started:
        _refuse_foreign_files(folder)
        _check_writable(folder)
        return manifests.new(spec)
    manifest = manifests.read(folder)
    if manifest["spec_digest"] != digest(spec):
        other = f"{folder} holds another run ({_difference(manifest['spec'], spec)})"
        raise ArtefactInvalid(f"{other}. Nothing was changed: choose another folder or delete this one.")
    return manifest


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Says in one sentence why the system does not let a run be written into the folder."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise OSError(f"No run can be stored in {folder}: {error_reason(error)}. Choose another folder.") from error


def _check_writable(folder: Path) -> None:
    """Raises OSError, before anything is computed, where the folder could not be made or written."""
    with _writing(folder):
        for place in (folder, *folder.absolute().parents):
            with suppress(FileNotFoundError):
                place.stat()
                if not os.access(place, os.W_OK | os.X_OK):
                    raise OSError(f"{place} is read-only, or may not be written by this user")
                return


def _stored_details(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The details of a run that is finished or has completed units."""
    started = manifest["status"] == "finished" or FileLedger(folder / UNITS, manifests.code_version()).count()
    return manifest["details"] if started else {}


def _refuse_foreign_files(folder: Path) -> None:
    """Raises ArtefactInvalid for a file, and for a folder with files that no run wrote."""
    if folder.is_file():
        raise ArtefactInvalid(f"{folder} is a file: give a folder for the run.")
    foreign = sorted(f.name for f in folder.glob("*") if f.name not in OWN_FILES and not f.name.endswith(TEMPORARY_SUFFIX))
    if foreign:
        raise ArtefactInvalid(f"{folder} is not empty and not a run directory (it holds {foreign[0]}): choose another folder.")


def _difference(stored: dict[str, Any], requested: dict[str, Any]) -> str:
    """In which fields two specifications differ, in words: the first three."""

    def text(spec: dict[str, Any], name: str) -> str:
        return json.dumps(spec.get(name), sort_keys=True)

    names = [name for name in sorted({*stored, *requested}) if text(stored, name) != text(requested, name)]
    if "kind" in names:  # then most fields belong to one of them alone
        names = ["kind"]
    parts = []
    for name in names:
        one, other = stored.get(name), requested.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            parts.append(_difference(one, other))
        elif name in DIGESTS:
            parts.append(f"other {name.replace('_', ' ')}")
        else:
            parts.append(f"{name} is {_plain(one)}, requested {_plain(other)}")
    return ", ".join(parts[:3])


def _plain(value: Any) -> str:
    """The value in words, numbers with all digits: two of them differ."""
    return "not set" if value is None else repr(value) if isinstance(value, float) else value_text(value)
