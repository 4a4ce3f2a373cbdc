"""`interp show`: a stored run, as a ranking, as data, or as a picture."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.command import command
from interp.cli.exits import UsageError, checking
from interp.cli.ranking import as_json, head_figure, print_agreement, print_ranking, ranked
from interp.cli.terminal import Terminal

if TYPE_CHECKING:
    from interp.records import RunRecord


@command
def show(
    terminal: Terminal,
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")],
    top: Annotated[int, typer.Option(min=0, help="Only so many rows; 0 for all.")] = 0,
    figure: Annotated[Path | None, typer.Option(help="Draw the heads to this file: .png, .svg or .html.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="The ranked table as CSV on stdout, and nothing else.")] = False,
) -> None:
    """Print the ranking of a finished run with the record of how it was made, and draw it.

    effect = metric(ablated) - metric(clean); negative = the head helped.
    """
    from interp.store import open_run

    if csv and terminal.json:
        raise UsageError("--csv and --json both decide what stands on stdout: give one of them.")
    run = open_run(path)
    table = run.heads()
    if figure:
        from interp.figures import save_figure

        with checking():
            terminal.say(f"Drawn to {save_figure(head_figure(run), figure)}.")
    if csv:
        ranked(table).to_csv(sys.stdout, index=False, lineterminator="\n")
        return
    _print_record(terminal, run.record)
    print_ranking(terminal, table, top)
    print_agreement(terminal, run)
    terminal.emit(as_json(run))


def _print_record(terminal: Terminal, record: "RunRecord") -> None:
    revision = f" @{record.revision[:12]}" if record.revision else ""
    commit = f", commit {record.commit[:12]}{' with local changes' if record.dirty else ''}" if record.commit else ""
    terminal.line(f"{record.task} on {record.model}{revision}: {', '.join(record.interventions)} ablation, {record.metric}")
    terminal.line("  " + ", ".join(f"{key} {value}" for key, value in record.arguments.items()))
    terminal.line(f"  seed {record.seed}, {record.dtype} on {record.device}, weights {record.weights}{commit}")
    terminal.line("  " + ", ".join(f"{name} {version}" for name, version in record.packages.items()))
