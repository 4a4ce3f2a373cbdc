"""``run.json``, the manifest of a run directory: created, validated on reading, written."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interp.errors import ArtefactInvalid
from interp.files import write_atomically
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
        raise ArtefactInvalid(f"{folder} is not a run directory: it has no {NAME}.") from None
    except ValueError as error:
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
    return manifest


def write(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest. Raises ValueError for NaN and infinite numbers."""
    write_atomically(folder / NAME, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
