"""Public names that are imported on first use, so that importing a package costs milliseconds."""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class _LazyPackage(ModuleType):
    """A package in which a public name wins over a file of the same name: importing ``circuits/acdc.py`` leaves ``circuits.acdc`` the
    function."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_own_file = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if not (is_own_file and name in self.__dict__.get("__all__", ())):
            super().__setattr__(name, value)


def exports(package: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose public names live in the modules of ``homes``."""
    sys.modules[package].__class__ = _LazyPackage

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"{package} has no attribute {name!r}. It has: {', '.join(sorted(homes))}.")
        return getattr(import_module(homes[name]), name)

    return get, lambda: sorted(homes)
