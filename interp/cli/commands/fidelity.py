"""`interp fidelity`: how close each head stays to itself under an attention variant."""

import typer

from interp.cli.command_from_spec import Request, print_location, run_command
from interp.cli.exit_codes import DONE, FAILED_CHECKS
from interp.cli.ranking_output import as_json, print_metrics
from interp.cli.terminal import Terminal
from interp.experiments.fidelity import FidelitySpec

OPTIONS = {
    "text": typer.Option(help="A text."),
    "file": typer.Option("--file", "-f", help="A file with one text, of any length; - is standard input."),
    "lines": typer.Option("--lines", help="--file holds one text on each line."),
    "variant": typer.Option("--variant", help="An attention variant from `interp variants`, with options: window:size=64."),
}


@run_command(FidelitySpec, OPTIONS, skip=("metrics",))
def fidelity(terminal: Terminal, request: Request) -> int:
    """Compare every head's rows with those of an attention variant, each head by itself.

    Density, retained mass and that of the best mask of the same size, total variation, KL divergence, and the error of the head's output.
    What the variant costs the model is measured by `interp ablate --ablation VARIANT`.
    """
    experiment = request.prepare()
    if (run := request.run(experiment)) is not None:
        print_metrics(terminal, run)
        print_location(terminal, run, "prints and draws it")
        terminal.emit(as_json(run))
        return FAILED_CHECKS if run.manifest["details"].get("overflows") else DONE
    return DONE
