"""Named entries of one kind: a folder of interp, and entry points of other packages.

One file holds one entry, named as the file: ``tasks/ioi.py`` defines ``ioi``, and adding the file registers it. Another package registers
its own through an entry point, ``my_task = "my_lab.my_task"`` under ``[project.entry-points."interp.tasks"]``. Listing names imports
nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TYPE_CHECKING, Any

from interp._check_argument_types import with_article
from interp.errors import ExtensionError, first_line, there_are
from interp.files import sha256

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

EXTENSION_GROUPS = tuple(f"interp.{kind}" for kind in ("metrics", "outcomes", "tasks", "detectors", "interventions"))


def check_name(name: str, known: Collection[str], noun: str) -> None:
    """Raises LookupError, with the known names and the closest one, for a name that is not among them."""
    if name not in known:
        raise LookupError(f"No {noun} is called {name!r}.{there_are(name, known)}")


def check_options(names: Iterable[str], known: Collection[str], owner: str, arguments: Collection[str] = ()) -> None:
    """Raises LookupError, with the known options and the closest one, for the first of ``names`` that ``owner`` does not have.
    ``arguments`` are given beside the options and may be meant as well."""
    for name in names:
        if name not in known:
            raise LookupError(f"{owner} has no option {name!r}.{there_are(name, known, arguments, 'It has no options.')}")


class Registry:
    """The entries of one package folder and of the entry points of ``group``; an unknown name is answered with the known ones.

    Files in ``exclude`` and private files are not entries; those of ``folders`` inside the package are. ``kind`` is the class that an entry
    of another package must have, by name.
    """

    def __init__(
        self,
        package: str,
        noun: str,
        group: str | None = None,
        exclude: tuple[str, ...] = (),
        kind: str = "function",
        folders: tuple[str, ...] = (),
    ) -> None:
        self.package, self.noun, self.group, self.kind, self._exclude = package, noun, group, kind, exclude
        self._packages = (package, *(f"{package}.{folder}" for folder in folders))

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted([*self._own(), *self._foreign()])

    def get(self, name: str) -> Any:
        """The entry called ``name``. Raises LookupError for an unknown name and for an entry of another package that cannot be loaded."""
        check_name(name, self.names(), self.noun)
        if name in self._own():
            return getattr(self.module(name), name)
        return _load(self._foreign()[name], self.noun, self.kind)

    def entries(self) -> dict[str, Any]:
        """All entries by name, without those of other packages that cannot be loaded: each gives one warning."""
        entries = {}
        for name in self.names():
            try:
                entries[name] = self.get(name)
            except LookupError as error:
                _warn_once(str(error))
        return entries

    def module(self, name: str) -> ModuleType:
        """The module that defines an entry."""
        foreign = self._foreign().get(name)
        return import_module(foreign.module if foreign else f"{self._own().get(name, self.package)}.{name}")

    def describe(self, name: str) -> str:
        """What an entry is: its ``about``, or its module's docstring up to the first full stop."""
        about = getattr(self.get(name), "about", None)
        if isinstance(about, str):
            return about
        text = self.module(name).__doc__ or ""
        return re.split(r"(?<!\bet al)\.(?=\s|$)", " ".join(text.replace("``", "").split()))[0]

    @contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """Raises ExtensionError, which names the entry, its package and the line, for an error of its code inside the block; a ValueError
        and whatever else is meant for the user goes through."""
        try:
            yield
        except (ValueError, OSError, MemoryError, ExtensionError):
            raise
        except Exception as error:
            if type(error) is LookupError:
                raise
            point, frames = self._foreign().get(name), extract_tb(error.__traceback__)
            frame = next((f for f in reversed(frames) if f.filename == self.module(name).__file__), frames[-1])
            what = _origin(point, self.noun) if point else f"{self.noun} {name!r}"
            said = f"{type(error).__name__}: {first_line(error)}"
            raise ExtensionError(f"The {what} raised {said}, in {Path(frame.filename).name}:{frame.lineno}.") from error

    def _own(self) -> dict[str, str]:
        """The package of each entry of this project."""
        return {name: package for package in self._packages for name in _files(package) if name not in self._exclude}

    def _foreign(self) -> dict[str, EntryPoint]:
        points: dict[str, EntryPoint] = {}
        for point in _entry_points(self.group) if self.group else ():
            owner = "interp" if point.name in self._own() else _distribution(points.get(point.name))
            if owner is None:
                points[point.name] = point
            else:
                _warn_once(f"The {_origin(point, self.noun)} is ignored, since {owner} has one of this name: rename it.")
        return points


def extension_code(names: Collection[str]) -> dict[str, str]:
    """SHA-256 (first 16 hex digits) of the code of every entry of another package that has one of these names: of all Python files of the
    package, since an entry may use others of them, or of its file where it stands alone."""
    code = {}
    for point in (point for group in EXTENSION_GROUPS for point in _entry_points(group) if point.name in names):
        with suppress(ImportError, ValueError, OSError):  # one that cannot be loaded is named where it is used
            spec = find_spec(point.module.partition(".")[0])
            if spec is not None:
                folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
                files = [file for folder in folders for file in sorted(folder.rglob("*.py"))] or [Path(str(spec.origin))]
                code[point.name] = sha256(b"".join(sha256(file.read_bytes()).encode() for file in files))[:16]
    return code


def refresh() -> None:
    """Reads folders and entry points anew; they are otherwise read once per process."""
    _files.cache_clear()
    _entry_points.cache_clear()
    _WARNED.clear()


_WARNED: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _WARNED:
        _WARNED.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


@cache
def _files(package: str) -> tuple[str, ...]:
    """Names of the public files of a package, without importing it."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations, package
    files = Path(next(iter(spec.submodule_search_locations))).glob("*.py")
    return tuple(file.stem for file in files if not file.stem.startswith("_"))


@cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points

    return tuple(sorted(entry_points(group=group), key=lambda point: (_distribution(point) or "", point.name)))


def _distribution(point: EntryPoint | None) -> str | None:
    return point and (point.dist.name if point.dist else point.module)


def _origin(point: EntryPoint, noun: str) -> str:
    return f"{noun} {point.name!r} of package {_distribution(point)!r}"


def _load(point: EntryPoint, noun: str, kind: str) -> Any:
    """The object that an entry point names; of a module, its attribute of the entry's name."""
    try:
        entry = point.load()
        entry = getattr(entry, point.name) if isinstance(entry, ModuleType) else entry
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise LookupError(f"The {_origin(point, noun)} cannot be loaded from {point.value!r}: {reason}") from error
    name = getattr(entry, "name", getattr(entry, "__name__", None))
    if kind not in {base.__name__ for base in type(entry).__mro__} or name != point.name:
        raise LookupError(
            f"The {_origin(point, noun)} is the {type(entry).__name__} {name!r}, and must be {with_article(kind)} called {point.name!r}."
        )
    return entry
