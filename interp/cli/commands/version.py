"""`interp version`: the installed versions."""

import platform

from interp import __version__
from interp.cli.command_decorator import command
from interp.cli.terminal import Terminal


@command
def version(terminal: Terminal) -> None:
    """Print the versions of interp, of Python, and of the packages that the numbers depend on."""
    from interp.records import package_versions, source_commit

    commit, dirty = source_commit()
    packages = dict(package_versions())
    terminal.line(f"interp {__version__}" + (f" ({commit[:12]}{', with local changes' if dirty else ''})" if commit else ""))
    for name, number in {"python": platform.python_version(), **packages}.items():
        terminal.line(f"  {name} {number}")
    source = {"commit": commit, "dirty": dirty}
    terminal.emit({"interp": __version__, "python": platform.python_version(), "packages": packages, **source})
