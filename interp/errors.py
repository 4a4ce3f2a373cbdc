"""Failures that a caller may want to catch separately from wrong arguments (ValueError, TypeError, LookupError), and what
sentences have in common."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any


class ModelUnavailable(OSError):
    """The model or its data is not available: no such folder, no network, missing or truncated weights. Exit code 4."""


class MemoryBudgetExceeded(MemoryError):
    """The work would exceed the memory budget; the message states estimate and budget. Exit code 5."""


class ArtefactInvalid(ValueError):
    """A stored file is damaged, of another version, or of something else. Exit code 6."""


class ExtensionError(TypeError):
    """A metric, outcome, intervention, detector or task, usually of another package, is or returned what its kind may not be (the message
    says what it must be), or its code failed."""


class FastPathUnavailable(ValueError):
    """The model cannot be observed or resumed at a layer, for the reason given; sweeps then use the hooked backend."""


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says (its type where it says nothing), without a full stop, for a sentence of ours."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(" .:")


def shape_or_type(value: object) -> str:
    """What an extension returned, for a sentence that refuses it: the shape of a tensor, else the type."""
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else str(tuple(shape))


def counted(n: int, noun: str) -> str:
    """The number with its noun, in the plural where that is not one."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def settings_text(values: Mapping[str, Any]) -> str:
    """Settings in words, separated by commas: ``n_prompts 4, prefix_shared yes``. Those that are None are left out."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items() if value is not None)


def value_text(value: Any) -> str:
    """A JSON value in words: yes and no, numbers of four significant digits, lists and mappings without brackets."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={value_text(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return " ".join(map(value_text, value)) or "none"
    return "none" if value in (None, "") else str(value)


def there_are(name: str, known: Collection[str], others: Collection[str] = (), none: str = "There are: none.") -> str:
    """The end of a sentence that refuses a name: the known ones (without any, ``none``), and the closest of them and of ``others``."""
    close = get_close_matches(name.lower(), [*known, *others], n=1)
    listed = f"There are: {', '.join(known)}." if known else none
    return f" {listed}" + (f" Did you mean {close[0]!r}?" if close else "")
