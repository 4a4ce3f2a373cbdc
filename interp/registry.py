"""A shelf that fills itself from the files of a folder.

One file holds one entry, named as the file: ``tasks/ioi.py`` defines ``ioi``. Adding the file is the whole registration.
Names are read from the folder, so listing them imports nothing.
"""

import re
from collections.abc import Collection
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def check_name(name: str, known: Collection[str], noun: str) -> None:
    """Raises LookupError, with the known names, for a name that is not among them."""
    if name not in known:
        raise LookupError(f"No {noun} is called {name!r}. There are: {', '.join(known)}.")


class Registry:
    """The entries of one package folder; unknown names are answered with the list of known ones."""

    def __init__(self, package: str, noun: str, exclude: tuple[str, ...] = ()) -> None:
        self.package, self.noun, self._exclude = package, noun, exclude

    def names(self) -> list[str]:
        """Names of all entries, sorted; files in ``exclude`` and private files are not entries."""
        spec = find_spec(self.package)
        assert spec is not None and spec.submodule_search_locations, self.package
        files = Path(next(iter(spec.submodule_search_locations))).glob("*.py")
        return sorted(f.stem for f in files if not f.stem.startswith("_") and f.stem not in self._exclude)

    def get(self, name: str) -> Any:
        """The entry called ``name``. Raises LookupError with the known names for any other."""
        check_name(name, self.names(), self.noun)
        return getattr(import_module(f"{self.package}.{name}"), name)

    def about(self, name: str) -> str:
        """What an entry is, in the words that open its file: its docstring up to the first colon, semicolon, bracket or full stop."""
        said = import_module(f"{self.package}.{name}").__doc__ or ""
        return re.split(r"[:;.](?=\s|$)| \(", " ".join(said.replace("``", "").split()))[0]
