"""Files that are either the old one or the complete new one, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

TEMPORARY = ".tmp"


def publish(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` atomically: temporary name in the same folder, fsync, rename, fsync of the folder.

    Raises OSError with one sentence when the disk is full or refuses; the file that was there before is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}{TEMPORARY}")
    try:
        _write(temporary, content)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise OSError(_sentence(path, len(content), error)) from error


def clean(folder: Path) -> None:
    """Removes the temporary files that killed writers left; only for the holder of the folder's lock."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        _remove(leftover)


def sha256(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows has no handle on a folder; its rename is on disk when it returns
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a disk that refuses writes may refuse this too; the name alone marks the file as rubbish
        pass


def _sentence(path: Path, size: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"The disk is full: {size:,} bytes for {path} could not be written"
        return f"{what}. What was stored stays readable; free some space and run the same command again."
    return f"{path} could not be written ({error.strerror or error}). What was stored stays readable."
