"""Packages that only some models need; they are extras of this package."""

from importlib.util import find_spec

from interp.errors import ModelUnavailable


def need_packages(what: str, extra: str, *packages: str) -> None:
    """Raises ModelUnavailable naming those of ``packages`` that are not installed, and the extra that installs them."""
    if missing := [package for package in packages if find_spec(package) is None]:
        needed = " and ".join(missing)
        raise ModelUnavailable(f"{what} needs {needed}, which is not installed: pip install 'interp-workbench[{extra}]'.")
