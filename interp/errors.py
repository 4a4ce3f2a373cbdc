"""The three failures that a caller may want to catch apart from bad arguments (ValueError, TypeError, LookupError)."""


class ModelUnavailable(OSError):
    """The model or its data cannot be had: no such folder, no network, missing or truncated weights. Exit code 4."""


class MemoryBudgetExceeded(MemoryError):
    """The work would not fit the stated budget; the message names estimate and budget. Exit code 5."""


class ArtefactInvalid(ValueError):
    """A stored file is not what it should be: damaged, of another version, or made from something else. Exit code 6."""
