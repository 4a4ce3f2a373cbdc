"""Public names that are imported on first use, so that importing a package costs milliseconds.

A package states its public names once, for type checkers and for Python alike::

    if TYPE_CHECKING:
        from interp.heads import Head as Head
    else:
        __all__, __getattr__, __dir__ = exports(__name__)

Type checkers follow the imports; ``exports`` reads them from the source and performs each when its name is first used. An import
without ``as`` serves annotations only and is not exported. Exported functions check their arguments (``_check_argument_types``).
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any

from interp._check_argument_types import checks_arguments


class _LazyPackage(ModuleType):
    """A package whose public names take precedence over its files: importing ``circuits/acdc.py`` leaves ``circuits.acdc`` the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_own_file = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if not (is_own_file and name in self.__dict__.get("__all__", ())):
            super().__setattr__(name, value)


def exports(package: str, *own: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a package: the re-exports of its TYPE_CHECKING block, and the names of ``own``, which
    the package defines itself."""
    module = sys.modules[package]
    module.__class__ = _LazyPackage
    homes = _reexports(module)
    names = sorted([*homes, *own])

    def get(name: str) -> Any:
        if name not in homes:
            if "." not in package and not name.startswith("_") and find_spec(f"{package}.{name}"):
                return import_module(f"{package}.{name}")
            raise AttributeError(f"{package} has no attribute {name!r}. It has: {', '.join(names)}.")
        value = getattr(import_module(homes[name]), name)
        return checks_arguments(value) if isinstance(value, FunctionType) else value

    return names, get, lambda: names


def _reexports(module: ModuleType) -> dict[str, str]:
    """The module that each ``from module import name as name`` of a TYPE_CHECKING block names, by public name."""
    loader: Any = module.__loader__
    tree = ast.parse(loader.get_source(module.__name__))
    blocks = [n.body for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names if alias.asname == alias.name}
