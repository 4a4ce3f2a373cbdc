"""`interp confirm`: whether detected heads matter for a task, compared with control heads, stored in a run directory.

The same command resumes an unfinished run directory and leaves a finished one as it is.
"""

import typer

from interp.cli.command_from_spec import Request, run_command
from interp.cli.detection_and_confirmation_output import print_role_run
from interp.cli.options import Settings
from interp.cli.terminal import Terminal
from interp.experiments.confirmation import ConfirmationSpec
from interp.experiments.prompts import task_settings
from interp.experiments.usage_error import usage_errors

OPTIONS = {
    "task": typer.Option(
        "--task", "-t", help="Task that supplies the prompts; default: the one that the detector names, if any."
    ),
    "detection": typer.Argument(metavar="RUN", help="Run directory of a detection (`interp detect`)."),
    "ks": typer.Option(help="Numbers of heads to ablate: 1,2,5; default: those for which control heads remain."),
    "n_draws": typer.Option(help="Sets of random heads, at least five."),
    "ablation": typer.Option(help="NAME[:option=value,...] of `interp ablations`, without those that need corrupted prompts."),
    "positions": typer.Option(help="Ablated positions: all, end, marks of the task; separated by commas."),
    "metric": typer.Option(help="Metric of the answer (`interp metrics`)."),
    "specificity": typer.Option(help="Control tasks that should not need these heads; separated by commas."),
    "seed": typer.Option(min=0, help="Seed for prompts, random heads and bootstrap; default: the detection's seed plus one."),
    "device": typer.Option(help="cpu, cuda ...; default: that of the detection."),
}


@run_command(ConfirmationSpec, OPTIONS, skip=("model", "dtype"))
def confirm(terminal: Terminal, request: Request, settings: Settings = None) -> None:
    """Ablate the k highest-scoring heads of a detection together, and compare with equally many random, layer-matched and
    lowest-scoring heads.

    effect = metric(ablated) - metric(clean); negative = the heads helped. The prompts differ from those of the detection.
    """
    with usage_errors():
        options = task_settings(ConfirmationSpec(**request.values).resolve().task, settings) if settings else {}
    print_role_run(terminal, request.run(request.prepare(task_options=options)))
