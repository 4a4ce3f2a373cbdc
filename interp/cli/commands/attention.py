"""`interp attention`: metrics of every head's attention pattern, on a text of any length or the prompts of a task."""

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.command_from_spec import Request, print_location, run_command
from interp.cli.exit_codes import DONE, FAILED_CHECKS
from interp.cli.ranking_output import as_json, print_metrics, print_undefined
from interp.cli.terminal import Terminal
from interp.experiments.attention import AttentionSpec
from interp.experiments.usage_error import usage_errors

OPTIONS = {
    "text": typer.Option(help="A text."),
    "file": typer.Option("--file", "-f", help="A file with one text, of any length; - is standard input."),
    "lines": typer.Option("--lines", help="--file holds one text on each line."),
    "metrics": typer.Option(help="Names from `interp metrics`, with parameters: entropy,windowed_distance:window=20."),
}


@run_command(AttentionSpec, OPTIONS)
def attention(
    terminal: Terminal,
    request: Request,
    headvis: Annotated[
        Path | None, typer.Option(help="Also write a HeadVis tree here: its six numbers per head, and patterns as sparse rows.")
    ] = None,
) -> int:
    """Measure metrics of every head's attention pattern, on a text or on the prompts of a task.

    Stores one number per head, one per token (the mean over all heads), and the values at every query and key. Exits
    with 3 when the model overflows in its dtype.
    """
    from interp.store.headvis_files import check_empty

    if headvis is not None:
        check_empty(headvis)
    experiment = request.prepare()
    if headvis is not None and not request.dry_run:
        _export(request, experiment, headvis)
    if (run := request.run(experiment)) is not None:
        print_metrics(terminal, run)
        print_undefined(terminal, run, run.heads())
        print_location(terminal, run, "prints and draws it")
        terminal.emit(as_json(run))
        return FAILED_CHECKS if run.manifest["details"].get("overflows") else DONE
    return DONE


def _export(request: Request, experiment: Any, folder: Path) -> None:
    """Writes the HeadVis tree from the queries and keys of a pass of its own, once it is known that the run can be stored."""
    from interp.engine import capture_attention
    from interp.store import export_headvis

    target = experiment.target(request.out, lambda sentence: None)
    target.holds_run() if request.fresh else target.finished()
    with usage_errors():
        path = export_headvis(capture_attention(experiment.model, experiment.prompts), folder, experiment.name)
    request.terminal.say(f"Wrote a HeadVis tree to {path}.")
