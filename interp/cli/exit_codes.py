"""The exit code and the sentence for an error: the only place that decides either."""

from interp.errors import ArtefactInvalid, ExtensionError, MemoryBudgetExceeded, ModelUnavailable
from interp.experiments.usage_error import UsageError, error_sentence

DONE, FAILED, USAGE, FAILED_CHECKS, UNAVAILABLE, REFUSED, INVALID, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 4, 5, 6, 130, 141


def exit_code_and_message(error: BaseException) -> tuple[int, str]:
    """The exit code and one sentence for the error that ended a command."""
    return _code(error), _sentence(error)


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
    message = error_sentence(error)
    if isinstance(error, KeyboardInterrupt):
        return message or "Interrupted; nothing was stored."
    if isinstance(error, MemoryBudgetExceeded):
        return message
    if _out_of_memory(error):
        reason = f"Memory ran out ({message or type(error).__name__})"
        return f"{reason}: give a lower --memory (with --fresh, if units are stored), or shorter or fewer prompts."
    if isinstance(error, ValueError | OSError | ExtensionError) or type(error) is LookupError:
        return message
    what = " ".join(
        [f"Unexpected {type(error).__name__}: {message.rstrip('.') or 'no message'}.", *getattr(error, "__notes__", ())]
    )
    return f"{what} Run the command again with --debug to see where."


def _out_of_memory(error: BaseException) -> bool:
    """torch's own error is recognized by its name, because this file must not import torch."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
