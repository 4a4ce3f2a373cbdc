"""What went wrong, as an exit code and one sentence: the only place that decides either."""

from collections.abc import Iterator
from contextlib import contextmanager

from interp.errors import ArtefactInvalid, MemoryBudgetExceeded, ModelUnavailable

DONE, FAILED, USAGE, FAILED_CHECKS, UNAVAILABLE, REFUSED, INVALID, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


class UsageError(Exception):
    """What was asked cannot be done as it was asked: a wrong value, or options that do not go together. Exit code 2."""


def exit_code_and_message(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence for whatever ended a command."""
    return _code(error), _sentence(error)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Inside, a wrong value or a missing file is the user's argument, not a failure of the work: exit code 2 instead of 1."""
    try:
        yield
    except (ArtefactInvalid, ModelUnavailable):
        raise
    except (ValueError, FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(_sentence(error)) from error


def _code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, ModelUnavailable):
        return UNAVAILABLE
    if isinstance(error, ArtefactInvalid):
        return INVALID
    if isinstance(error, MemoryBudgetExceeded) or _out_of_memory(error):
        return REFUSED
    return USAGE if isinstance(error, UsageError) or type(error) is LookupError else FAILED


def _sentence(error: BaseException) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return said or "Interrupted; nothing was stored."
    if isinstance(error, FileNotFoundError | IsADirectoryError) and error.filename is not None:
        return f"{error.filename} cannot be read: {error.strerror}."
    if isinstance(error, MemoryBudgetExceeded):
        return said
    if _out_of_memory(error):
        why = f"Memory ran out ({said or type(error).__name__})"
        return f"{why}: give a lower --memory (with --fresh, if units are stored), or shorter or fewer prompts."
    if isinstance(error, UsageError | ValueError | OSError) or type(error) is LookupError:
        return said
    return f"Unexpected {type(error).__name__}: {said or 'no message'}. Run the command again with --debug to see where."


def _out_of_memory(error: BaseException) -> bool:
    """torch's own error is known by its name, because this file must not import torch."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
