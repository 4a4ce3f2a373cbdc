"""Errors that are the fault of the request rather than of the work: the command line exits with 2 for them instead of 1."""

from collections.abc import Iterator
from contextlib import contextmanager

from interp.errors import ArtefactInvalid, ModelUnavailable
from interp.files import error_reason


class UsageError(ValueError):
    """The request cannot be carried out as given: a wrong value, or values that exclude each other. Exit code 2."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turns a ValueError or a missing file inside the block into a UsageError with the same message."""
    try:
        yield
    except (ArtefactInvalid, ModelUnavailable, UsageError):
        raise
    except (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise UsageError(error_sentence(error)) from error


def error_sentence(error: BaseException) -> str:
    """The message of an error on one line; for a file that the system refuses its name and the reason."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename or 'A file or connection'} cannot be used: {error_reason(error)}."
    return " ".join(str(error).split())
