"""`interp show`: a stored run as text, as data, or as a figure."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.circuit_output import EDGES_SHOWN, circuit_json, edges_by_effect, print_circuit
from interp.cli.command_decorator import command
from interp.cli.detection_and_confirmation_output import detection_json, load_role_run, print_detection, result_table
from interp.cli.performance_output import print_performance
from interp.cli.ranking_output import (
    as_json,
    head_rows,
    print_agreement,
    print_estimator,
    print_metrics,
    print_ranking,
    print_undefined,
    ranked,
)
from interp.cli.terminal import Terminal
from interp.errors import settings_text
from interp.experiments.usage_error import UsageError, usage_errors
from interp.models.installed_models import quantised_remark

if TYPE_CHECKING:
    from interp.store import StoredRun


@command
def show(
    terminal: Terminal,
    path: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory.")],
    top: Annotated[
        int | None, typer.Option(min=0, help=f"Number of rows; 0 for all. Default: all, of a circuit {EDGES_SHOWN} edges.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Write a figure to this file: .png, .svg or .html.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric of an observation.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Kind of --figure: heads, layers, tokens (the first text) or ranking; for detections waad_fai or needle_grid, for "
            "confirmations confirmation_curve, for circuits circuit or faithfulness. Default: the first that is available."
        ),
    ] = None,
    minus: Annotated[Path | None, typer.Option(help="--figure shows the difference from this run directory.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write only the ranked table to stdout, as CSV.")] = False,
) -> None:
    """Print a finished run with its record, and draw it.

    Ablations: heads ranked by effect = metric(ablated) - metric(clean); negative = the head helped. Observations: one line per metric,
    or with --metric the ranking of all heads. Detections: heads by score. Confirmations: the curve over k. Circuits: the edges.
    """
    from interp.store import open_run
    from interp.store.tables_as_csv import to_csv

    if csv and terminal.json:
        raise UsageError("--csv and --json both decide what is written to stdout: give one of them.")
    if minus and not figure:
        raise UsageError("--minus needs --figure, the file for the figure of the difference.")
    if minus and kind not in (None, "heads"):
        raise UsageError(f"A difference is drawn as heads, not as {kind}: leave out --kind or --minus.")
    run = open_run(path)
    if run.manifest["details"].get("kind") == "circuit":
        if metric or minus:
            raise UsageError(
                f"{path} is a circuit, which has one metric and no value per head: leave out {'--metric' if metric else '--minus'}; "
                f"`interp circuit compare A B` compares two."
            )
        return _show_circuit(terminal, run, EDGES_SHOWN if top is None else top, figure, kind, csv)
    top = top or 0
    result = load_role_run(run) if metric is None else None
    table = head_rows(run, metric) if result is None else result_table(result)
    if figure:
        _draw(terminal, run, figure, kind, metric, minus)
    if csv:
        sys.stdout.write(to_csv(ranked(table) if result is None else table))
        return None
    _print_record(terminal, run)
    if result is not None:
        print_detection(terminal, result, top)
        terminal.emit(detection_json(run, result))
        return None
    print_performance(terminal, run.record)
    if len(set(table["metric"])) > 1:
        print_metrics(terminal, run, top)
    else:
        print_estimator(terminal, run.record)
        print_ranking(terminal, table, top)
    print_undefined(terminal, run, table)
    print_agreement(terminal, run)
    terminal.emit(as_json(run, metric))
    return None


def _show_circuit(terminal: Terminal, run: "StoredRun", top: int, figure: Path | None, kind: str | None, csv: bool) -> None:
    if figure:
        _draw(terminal, run, figure, kind, None, None)
    if csv:
        from interp.store.tables_as_csv import to_csv

        sys.stdout.write(to_csv(edges_by_effect(run)))
        return
    _print_record(terminal, run, changed_by="")
    print_circuit(terminal, run, top)
    terminal.emit(circuit_json(run))


def _draw(terminal: Terminal, run: "StoredRun", figure: Path, kind: str | None, metric: str | None, minus: Path | None) -> None:
    from interp.figures import head_difference_map, run_figure, save_figure
    from interp.figures.run_figures import FIGURE_KINDS, available_figures
    from interp.store import open_run

    if kind in FIGURE_KINDS and kind not in available_figures(run):
        raise UsageError(f"{run.path} is drawn as {' or '.join(available_figures(run))}, not as {kind}.")
    with usage_errors():
        if minus:
            drawn = head_difference_map(run.scores(metric), open_run(minus).scores(metric))
        else:
            drawn = run_figure(run, kind or available_figures(run)[0], metric)
        terminal.say(f"Wrote the figure to {save_figure(drawn, figure)}.")


def _print_record(terminal: Terminal, run: "StoredRun", changed_by: str = " ablation") -> None:
    record = run.record
    revision = f" @{record.revision[:12]}" if record.revision else ""
    commit = f", commit {record.commit[:12]}{' with local changes' if record.dirty else ''}" if record.commit else ""
    bos = f", BOS {record.bos}" if record.bos else ""
    form = f" ({record.weights_form})" if record.weights_form else ""
    changed = f"{', '.join(record.interventions)}{changed_by}, " if record.interventions else ""
    terminal.line(f"{record.task} on {record.model}{revision}: {changed}{record.metric}")
    settings = record.arguments or run.manifest["spec"].get("options") or {}
    if settings := {key: value for key, value in settings.items() if key != "clusters"}:
        terminal.line("  " + settings_text(settings))
    terminal.line(
        f"  seed {record.seed}, {record.dtype} on {record.device}, weights {record.weights_digest}{form}{bos}{commit}"
    )
    if remark := quantised_remark(record.model, record.weights_form):
        terminal.line(f"  {remark}")
    terminal.line("  " + ", ".join(f"{name} {version}" for name, version in record.packages.items()))
