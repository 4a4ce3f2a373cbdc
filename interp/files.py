"""Files: paths as users write them, why one cannot be used, and atomic writes, which leave the old file or the complete new one."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY_SUFFIX = ".tmp"
REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk is read-only",
    errno.ENAMETOOLONG: "the name is too long for the file system",
}


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` and ``~name`` replaced by the home folder, as a shell replaces them where they are not quoted."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises for the name of no user


def read_file(path: str | os.PathLike[str]) -> tuple[str, bytes]:
    """The path of a file, ``stdin`` for ``-``, and its content. Raises FileNotFoundError where there is none."""
    if str(path) == "-":
        return "stdin", sys.stdin.buffer.read()
    file = user_path(path)
    check_file(file)
    return str(file), file.read_bytes()


def check_file(path: str | os.PathLike[str]) -> None:
    """Raises FileNotFoundError where there is neither a file nor a pipe; ``-`` is standard input."""
    file, is_folder = user_path(path), False
    with suppress(OSError):  # raised for a name that is too long to exist
        is_folder = file.is_dir()
        if str(path) == "-" or (file.exists() and not is_folder):
            return
    raise FileNotFoundError(f"{file} is a folder: give a file." if is_folder else f"There is no file {file}.")


def encodable(value: Any) -> str:
    """The value as text that has a UTF-8 form: lone surrogates are escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode()


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
    return REASONS.get(error.errno or 0, error.strerror or str(error))


def _error_message(path: Path, size: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"The disk is full: {size:,} bytes for {path} could not be written"
        return f"{what}. What was stored stays readable; free some space and run the same command again."
    return f"{path} could not be written: {error_reason(error)}. What was stored stays readable."
