"""Atomic writes: a file is the old one or the complete new one, whatever interrupts the write."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path`` atomically. Raises as ``atomic_path``."""
    with atomic_path(path, len(content)) as temporary:
        _write(temporary, content)


@contextmanager
def atomic_path(path: Path, size: int) -> Iterator[Path]:
    """A temporary path in the same folder; the file of about ``size`` bytes that the block writes there replaces ``path`` when the block
    ends (fsync, rename, fsync of the folder).

    Raises OSError with one sentence when the write fails, for example on a full disk; an earlier file at ``path`` is kept then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(_error_message(path, size, error)) from error
    finally:
        _remove(temporary)


def remove_temporary_files(folder: Path) -> None:
    """Removes the temporary files of killed writers. Only for the single writer of a folder."""
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        _remove(leftover)


def sha256(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder; its rename is on disk when it returns
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a failing disk may refuse this too; the suffix marks the file as temporary
        path.unlink(missing_ok=True)


def error_reason(error: OSError) -> str:
    """The cause of a failed read or write in words."""
    known = {errno.ENOENT: "there is no such file", errno.EACCES: "permission denied", errno.EROFS: "the disk is read-only"}
    return known.get(error.errno or 0, error.strerror or str(error))


def _error_message(path: Path, size: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"The disk is full: {size:,} bytes for {path} could not be written"
        return f"{what}. What was stored stays readable; free some space and run the same command again."
    return f"{path} could not be written: {error_reason(error)}. What was stored stays readable."
