"""The runs in a folder: list, find, delete, pack.

A name is looked up among direct subfolders, never joined to a path. Links are not followed; only a run's files are deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from interp.errors import ArtefactInvalid, MemoryBudgetExceeded, first_line
from interp.files import TEMPORARY_SUFFIX, encodable, user_path
from interp.store import manifest as manifests
from interp.store.run_directory import LOCK, UNITS, open_run

DAMAGED, INTERRUPTED = "damaged", "interrupted"
FIGURE_SUFFIXES = (".png", ".svg", ".html")
RUN_FILE_SUFFIXES = (".json", ".parquet", ".safetensors", *FIGURE_SUFFIXES, TEMPORARY_SUFFIX)
MAX_ZIP_BYTES = 256 << 20
"""Bytes of the largest run that is packed into one file."""
OLDEST = (1980, 1, 1, 0, 0, 0)  # the ZIP format's earliest time, so that equal runs give equal files


@dataclass(frozen=True)
class RunSummary:
    """A run in a list. ``status`` is that of the run, ``interrupted`` for an unfinished one that no process is writing, or ``damaged``;
    ``error`` gives the reason. ``started`` is in UTC; ``n_layers`` and ``n_heads`` are 0 where unknown."""

    path: Path
    status: str
    error: str = ""
    kind: str = ""
    task: str = ""
    model: str = ""
    started: str = ""
    seconds: float = 0.0
    n_layers: int = 0
    n_heads: int = 0
    nbytes: int = 0
    has_heads: bool = False
    """Whether it is finished and holds numbers per head."""

    @property
    def name(self) -> str:
        return self.path.name


def list_runs(root: str | Path) -> list[RunSummary]:
    """The run directories in a folder, latest first and damaged ones last; empty if the folder does not exist."""
    entries = [_entry(folder) for folder in _folders(user_path(root))]
    return sorted(sorted(entries, key=lambda entry: entry.name), key=lambda entry: entry.started, reverse=True)


def find_run(root: str | Path, name: str) -> RunSummary:
    """The run of this name. Raises LookupError if there is none."""
    folder = next((folder for folder in _folders(user_path(root)) if folder.name == name), None)
    if folder is None:
        raise LookupError(f"No run is called {name[:80]!r} here.")
    return _entry(folder)


def delete_run(root: str | Path, name: str) -> None:
    """Deletes a run directory. Raises LookupError if there is none; ArtefactInvalid, before anything is deleted, while it is
    being written or if it holds a file that no run wrote."""
    from filelock import FileLock, Timeout

    folder = find_run(root, name).path
    foreign = next((path for path in folder.rglob("*") if not _written_by_run(path, folder)), None)
    if foreign is not None:
        raise ArtefactInvalid(f"{folder} holds {foreign.relative_to(folder)}, which no run wrote: delete the folder by hand.")
    try:
        with FileLock(folder / LOCK, timeout=0):
            for file in sorted(_files(folder), key=lambda file: file.name == manifests.NAME):  # manifest last
                file.unlink()
            if (folder / UNITS).exists():
                (folder / UNITS).rmdir()
    except Timeout:
        raise ArtefactInvalid(f"{folder} is being written by another process: wait for it to end, or cancel it.") from None
    (folder / LOCK).unlink(missing_ok=True)
    folder.rmdir()


def zip_run(entry: RunSummary) -> bytes:
    """The run directory as a ZIP file; equal runs give equal files. Raises MemoryBudgetExceeded above 256 MiB."""
    from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

    if entry.nbytes > MAX_ZIP_BYTES:
        size = f"{entry.name} takes {entry.nbytes >> 20:,} MiB, and at most {MAX_ZIP_BYTES >> 20} are packed into one file"
        raise MemoryBudgetExceeded(f"{size}: copy {entry.path} instead.")
    packed = BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for file in sorted(_files(entry.path)):
            inside = ZipInfo(f"{entry.name}/{file.relative_to(entry.path).as_posix()}", OLDEST)
            inside.compress_type, inside.external_attr = ZIP_DEFLATED, 0o644 << 16
            archive.writestr(inside, file.read_bytes())
    return packed.getvalue()


def _folders(root: Path) -> Iterator[Path]:
    """Run directories directly in the folder, without hidden ones and those with unprintable names."""
    for path in root.iterdir() if root.is_dir() else ():
        named = path.name.isprintable() and not path.name.startswith(".")
        if named and path.is_dir() and not path.is_symlink() and (path / manifests.NAME).is_file():
            yield path


def _files(folder: Path) -> Iterator[Path]:
    """The files of a run directory and of its units, without the lock and links."""
    for path in (*folder.glob("*"), *folder.glob(f"{UNITS}/*")):
        if path.name != LOCK and path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
            yield path


def _written_by_run(path: Path, folder: Path) -> bool:
    """Whether a run writes files of this name and place."""
    if path.is_symlink():
        return False
    if path.is_dir():
        return path == folder / UNITS
    return path.parent in (folder, folder / UNITS) and (path.name == LOCK or path.suffix in RUN_FILE_SUFFIXES)


def _entry(folder: Path) -> RunSummary:
    nbytes = sum(file.lstat().st_size for file in _files(folder))
    try:
        manifest = open_run(folder).manifest
        expected = manifest["files"] if manifest["status"] == "finished" else ()
        for name in expected:
            if not (folder / name).is_file():
                raise ArtefactInvalid(f"{folder} is damaged: it lacks {name}.")
        return RunSummary(folder, nbytes=nbytes, **_facts(folder, manifest))
    except ArtefactInvalid as error:
        return RunSummary(folder, DAMAGED, encodable(error), nbytes=nbytes)
    except (OSError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        message = f"{folder / manifests.NAME} is damaged ({type(error).__name__}: {first_line(error)})."
        return RunSummary(folder, DAMAGED, encodable(message), nbytes=nbytes)


def _facts(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    spec, record, status = manifest["spec"], manifest["record"] or {}, manifest["status"]
    n_layers, n_heads = map(int, manifest["details"].get("shape", (0, 0)))
    texts = {
        "status": INTERRUPTED if status == "running" and not _is_being_written(folder) else status,
        "error": manifest["error"],
        "kind": manifest["details"].get("kind") or spec.get("kind"),
        "task": record.get("task") or spec.get("task") or spec.get("input"),
        "model": record.get("model") or spec.get("model"),
        "started": str(manifest["started"]),
    }
    numbers = {"seconds": float(manifest["seconds"]), "n_layers": n_layers, "n_heads": n_heads}
    numbers["has_heads"] = status == "finished" and manifests.has_heads(manifest)
    return {name: encodable(text or "") for name, text in texts.items()} | numbers


def _is_being_written(folder: Path) -> bool:
    from filelock import FileLock, Timeout

    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
