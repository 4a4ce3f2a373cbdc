"""`interp show`: a stored run, as a ranking, as data, or as a picture."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.circuit_output import circuit_json, edges_by_effect, print_circuit
from interp.cli.command import command
from interp.cli.detection_output import detection_json, load_role_run, print_detection, result_table
from interp.cli.exit_codes import UsageError, usage_errors
from interp.cli.ranking_output import as_json, head_rows, print_agreement, print_metrics, print_ranking, print_undefined, ranked
from interp.cli.terminal import Terminal

if TYPE_CHECKING:
    from interp.records import RunRecord
    from interp.store import StoredRun


@command
def show(
    terminal: Terminal,
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")],
    top: Annotated[int, typer.Option(min=0, help="Only so many rows; 0 for all.")] = 0,
    figure: Annotated[Path | None, typer.Option(help="Draw the run to this file: .png, .svg or .html.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric of an observation.")] = None,
    draw: Annotated[
        str | None,
        typer.Option(
            help="What --figure draws: heads, layers (dots), tokens (the first text) or ranking; of a detection roles or grid, of a "
            "confirmation dose, of a circuit circuit or faithfulness. By default the first of these that there is."
        ),
    ] = None,
    minus: Annotated[Path | None, typer.Option(help="--figure draws the difference to this run directory.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="The ranked table as CSV on stdout, and nothing else.")] = False,
) -> None:
    """Print the heads of a finished run with the record of how it was made, and draw them.

    Of an ablation the ranking, where effect = metric(ablated) - metric(clean); negative = the head helped. Of an observation one line a
    metric, or with --metric the ranking of all heads. Of a detection the heads by score, of a confirmation the dose curve, of a
    circuit its edges.
    """
    from interp.store import open_run

    if csv and terminal.json:
        raise UsageError("--csv and --json both decide what stands on stdout: give one of them.")
    if minus and not figure:
        raise UsageError("--minus is drawn: say with --figure where to.")
    if minus and draw not in (None, "heads"):
        raise UsageError(f"A difference is drawn as heads, not as {draw}: leave out --draw or --minus.")
    run = open_run(path)
    if run.manifest["details"].get("kind") == "circuit":
        if metric or minus:
            raise UsageError(
                f"{path} is a circuit, which has one metric and no number a head: leave out {'--metric' if metric else '--minus'}; "
                f"`interp circuit compare A B` compares two."
            )
        return _show_circuit(terminal, run, top, figure, draw, csv)
    found = load_role_run(run) if metric is None else None
    table = head_rows(run, metric) if found is None else result_table(found)
    if figure:
        _draw(terminal, run, figure, draw, metric, minus)
    if csv:
        (ranked(table) if found is None else table).to_csv(sys.stdout, index=False, lineterminator="\n")
        return None
    _print_record(terminal, run.record)
    if found is not None:
        print_detection(terminal, found, top)
        terminal.emit(detection_json(run, found))
        return None
    if len(set(table["metric"])) > 1:
        print_metrics(terminal, run, top)
    else:
        print_ranking(terminal, table, top)
    print_undefined(terminal, run, table)
    print_agreement(terminal, run)
    terminal.emit(as_json(run, metric))
    return None


def _show_circuit(terminal: Terminal, run: "StoredRun", top: int, figure: Path | None, draw: str | None, csv: bool) -> None:
    if figure:
        _draw(terminal, run, figure, draw, None, None)
    if csv:
        edges_by_effect(run).to_csv(sys.stdout, index=False, lineterminator="\n")
        return
    _print_record(terminal, run.record, changed_by="")
    print_circuit(terminal, run, top)
    terminal.emit(circuit_json(run))


def _draw(terminal: Terminal, run: "StoredRun", figure: Path, draw: str | None, metric: str | None, minus: Path | None) -> None:
    from interp.figures import head_difference_map, run_figure, save_figure
    from interp.figures.run_figures import FIGURE_KINDS, available_figures
    from interp.store import open_run

    if draw in FIGURE_KINDS and draw not in available_figures(run):
        raise UsageError(f"{run.path} is drawn as {' or '.join(available_figures(run))}, not as {draw}.")
    with usage_errors():
        other = open_run(minus).scores(metric) if minus else None
        drawn = (
            head_difference_map(run.scores(metric), other)
            if other
            else run_figure(run, draw or available_figures(run)[0], metric)
        )
        terminal.say(f"Drawn to {save_figure(drawn, figure)}.")


def _print_record(terminal: Terminal, record: "RunRecord", changed_by: str = " ablation") -> None:
    revision = f" @{record.revision[:12]}" if record.revision else ""
    commit = f", commit {record.commit[:12]}{' with local changes' if record.dirty else ''}" if record.commit else ""
    changed = f"{', '.join(record.interventions)}{changed_by}, " if record.interventions else ""
    terminal.line(f"{record.task} on {record.model}{revision}: {changed}{record.metric}")
    terminal.line("  " + ", ".join(f"{key} {value}" for key, value in record.arguments.items()))
    terminal.line(f"  seed {record.seed}, {record.dtype} on {record.device}, weights {record.weights_digest}{commit}")
    terminal.line("  " + ", ".join(f"{name} {version}" for name, version in record.packages.items()))
