"""The run directory of a command: whether it holds the run already, what it does with an earlier one, how an unfinished one goes on."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.terminal import Terminal

if TYPE_CHECKING:
    from interp.store import RunWriter, StoredRun


def find_finished_run(terminal: Terminal, folder: Path, spec: dict[str, Any], fresh: bool) -> "StoredRun | None":
    """The run that ``folder`` holds already, which is said; None where it is still to be made, or is to be made afresh.

    Raises ArtefactInvalid when the folder holds something else.
    """
    from interp.store import finished_run

    if fresh:
        _holds_run(folder)
        return None
    run = finished_run(folder, spec)
    if run is not None:
        _say_finished(terminal, folder)
    return run


def move_aside(terminal: Terminal, folder: Path) -> Path | None:
    """Where the run that lay in ``folder`` lies afterwards (FOLDER.1, FOLDER.2 ...), which is said; None when there was none.

    Raises ArtefactInvalid when the folder holds something else than a run.
    """
    if not _holds_run(folder):
        return None
    number = 1
    while (free := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    moved = folder.rename(free)
    terminal.say(f"The earlier run was moved to {moved}.")
    return moved


@contextmanager
def resumable_run(terminal: Terminal, folder: Path, spec: dict[str, Any], memory: int | None) -> "Iterator[RunWriter]":
    """The run directory, to be filled with what it does not hold yet, unless it is finished. Says what it holds, that it keeps the memory
    budget that it was begun with, and when it is interrupted, how to go on."""
    from interp.store import start_run

    with start_run(folder, spec, memory=memory) as writer:
        if writer.finished:
            _say_finished(terminal, folder)
        elif done := writer.ledger.count():
            terminal.say(f"Resuming {folder}: {done} units are done.")
        budget = writer.details["memory"]
        if not writer.finished and memory not in (None, budget):
            kept = "the default memory budget" if budget is None else f"a memory budget of {budget:,} bytes"
            terminal.say(f"This run was begun with {kept} and goes on with it: --fresh measures anew with the one given now.")
        try:
            yield writer
        except KeyboardInterrupt:
            again = shlex.join(["interp", *sys.argv[1:]])
            raise KeyboardInterrupt(
                f"Interrupted: {writer.ledger.count()} units are stored in {folder}. To go on, run the same command again: {again}"
            ) from None


def _say_finished(terminal: Terminal, folder: Path) -> None:
    terminal.say(f"{folder} holds this run already, finished; nothing was computed. --fresh measures again.")


def _holds_run(folder: Path) -> bool:
    """Whether an earlier run lies in ``folder``. Raises ArtefactInvalid when it holds something else, which is never moved aside."""
    from interp.errors import ArtefactInvalid

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / "run.json").is_file():
        raise ArtefactInvalid(f"{folder} is not a run directory, and --fresh moves nothing else: choose another --out.")
    return True
