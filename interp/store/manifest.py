"""``run.json``, the manifest of a run directory: created, validated on reading, written."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interp.errors import ArtefactInvalid, first_line
from interp.files import error_reason, write_atomically
from interp.records import digest, package_versions, source_commit

SCHEMA = 2
NAME = "run.json"
STATUSES = ("running", "finished", "failed")
FIELDS = "schema run_id status error spec spec_digest code_version record started finished seconds files details".split()


def new(spec: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run that starts now. The run id follows from the spec, so that equal runs write equal tables."""
    identity = digest(spec)
    header = {"schema": SCHEMA, "run_id": identity, "status": "running", "spec": spec, "spec_digest": identity}
    unknown = dict.fromkeys(("error", "record", "finished"))
    return {**header, "code_version": code_version(), **unknown, "started": now(), "seconds": 0.0, "files": {}, "details": {}}


def code_version() -> dict[str, Any]:
    """The code that computes: package versions, commit, and whether the source differs from it."""
    commit, dirty = source_commit()
    return {"packages": dict(package_versions()), "commit": commit, "dirty": dirty}


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a run directory. Raises ArtefactInvalid if it is missing, damaged or of another version."""
    path = folder / NAME
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        if not folder.exists():
            raise ArtefactInvalid(f"{folder} does not exist: `interp runs` lists the stored runs.") from None
        raise ArtefactInvalid(f"{folder} is not a run directory: it has no {NAME}.") from None
    except NotADirectoryError:
        raise ArtefactInvalid(f"{folder} is a file: give the run directory, the folder that holds {NAME}.") from None
    except OSError as error:
        raise ArtefactInvalid(f"{path} cannot be read: {error_reason(error)}.") from None
    except (ValueError, RecursionError) as error:
        raise ArtefactInvalid(f"{path} is damaged: it is not JSON ({error}).") from None
    version = manifest.get("schema") if isinstance(manifest, dict) else None
    if version != SCHEMA:
        versions = f"is of version {version!r} of the run format; this interp reads version {SCHEMA}"
        raise ArtefactInvalid(f"{path} {versions}. Open it with the interp that wrote it.")
    missing = [name for name in FIELDS if name not in manifest]
    if missing:
        raise ArtefactInvalid(f"{path} is damaged: it lacks {', '.join(missing)}.")
    if manifest["status"] not in STATUSES:
        raise ArtefactInvalid(f"{path} is damaged: its status is {manifest['status']!r}, not one of {', '.join(STATUSES)}.")
    _check_types(path, manifest)
    return manifest


def _check_types(path: Path, manifest: dict[str, Any]) -> None:
    """Raises ArtefactInvalid for fields of another type, and for files that are not directly in the run directory."""
    for name in ("spec", "files", "details", "record"):
        if not isinstance(manifest[name], dict) and (name, manifest[name]) != ("record", None):
            raise ArtefactInvalid(f"{path} is damaged: its {name} is a {type(manifest[name]).__name__}, not an object.")
    for name in manifest["files"]:
        if name in ("", "..") or Path(name).name != name or "\0" in name:
            raise ArtefactInvalid(f"{path} is damaged: it names the file {name[:80]!r}, which is not in its folder.")


@contextmanager
def reading(folder: Path, *, looks_up: bool = False) -> Iterator[None]:
    """Within the block, errors that only content of another form can cause are raised as ArtefactInvalid. With ``looks_up``, a plain
    LookupError, for a name that the caller asked for in vain, stays what it is."""
    try:
        yield
    except ArtefactInvalid:
        raise
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        if looks_up and type(error) is LookupError:
            raise
        raise ArtefactInvalid(
            f"{folder} is damaged: its content is not what interp writes ({type(error).__name__}: {first_line(error)})."
        ) from error


def write(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest. Raises ValueError for NaN and infinite numbers."""
    write_atomically(folder / NAME, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def has_heads(manifest: dict[str, Any]) -> bool:
    """Whether the run has a table with a row per head."""
    return "heads.parquet" in manifest["files"]
