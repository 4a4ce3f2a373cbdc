"""`interp runs`: the stored runs of a folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from interp.cli.command_decorator import command
from interp.cli.terminal import Terminal
from interp.experiments.experiment import RUNS
from interp.experiments.usage_error import UsageError


@command
def runs(
    terminal: Terminal,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that holds the run directories.")] = RUNS,
) -> None:
    """List the stored runs, the last started first, with kind, model, task, status, date and size."""
    from interp.models.memory import format_bytes
    from interp.store import list_runs

    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}: give the folder that holds the run directories.")
    entries = list_runs(folder)
    columns = ("run", "kind", "model", "task", "status", "started (UTC)", "size")
    cells = [
        (e.name, e.kind, e.model, e.task, e.status, e.started[:19].replace("T", " "), format_bytes(e.nbytes)) for e in entries
    ]
    if entries:
        terminal.table(columns, cells, right=("size",))
    else:
        terminal.line(f"{folder} holds no runs.")
    terminal.emit({"folder": str(folder), "runs": [{**asdict(e), "name": e.name, "path": str(e.path)} for e in entries]})
