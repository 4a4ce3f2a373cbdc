"""Public names that are imported on first use, so that importing a package costs milliseconds.

A name must differ from every file of its package: importing the file would otherwise put the module in its place.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def exports(package: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose public names live in the modules of ``homes``."""

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"{package} has no attribute {name!r}. It has: {', '.join(sorted(homes))}.")
        return getattr(import_module(homes[name]), name)

    return get, lambda: sorted(homes)
