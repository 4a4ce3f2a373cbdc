"""`interp confirm`: whether detected heads matter for a task, compared with control heads, stored in a run directory.

The same command resumes an unfinished run directory and leaves a finished one as it is.
"""

from dataclasses import replace
from typing import Annotated

import typer

from interp.cli.command import command
from interp.cli.detection_output import print_role_run
from interp.cli.experiment_runner import prepare, run_or_estimate
from interp.cli.options import (
    Bar,
    DryRun,
    Fresh,
    Memory,
    NPrompts,
    Offline,
    Out,
    Prompts,
    Revision,
    Settings,
    TaskName,
    read_list,
    read_memory,
    read_numbers,
)
from interp.cli.terminal import Terminal
from interp.experiments.confirmation import ConfirmationSpec, task_parameters
from interp.experiments.usage import usage_errors
from interp.options_text import parse_options


@command
def confirm(
    terminal: Terminal,
    detection: Annotated[str, typer.Argument(metavar="RUN", help="Run directory of a detection (`interp detect`).")],
    task: TaskName = None,
    prompts: Prompts = None,
    settings: Settings = None,
    n_prompts: NPrompts = ConfirmationSpec.n_prompts,
    ks: Annotated[
        str | None, typer.Option(help="Numbers of heads to ablate: 1,2,5; default: those for which control heads remain.")
    ] = None,
    n_draws: Annotated[int, typer.Option(help="Sets of random heads, at least five.")] = ConfirmationSpec.n_draws,
    ablation: Annotated[
        str, typer.Option(help="NAME[:option=value,...] of `interp ablations`, without those that need corrupted prompts.")
    ] = ConfirmationSpec.ablation,
    positions: Annotated[
        str, typer.Option(help="Ablated positions: all, end, marks of the task; separated by commas.")
    ] = ",".join(ConfirmationSpec.positions),
    metric: Annotated[str, typer.Option(help="Metric of the answer (`interp metrics`).")] = ConfirmationSpec.metric,
    specificity: Annotated[
        str | None, typer.Option(help="Control tasks that should not need these heads; separated by commas.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed for prompts, random heads and bootstrap; default: the detection's seed plus one."),
    ] = None,
    memory: Memory = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...; default: that of the detection.")] = None,
    revision: Revision = None,
    out: Out = None,
    fresh: Fresh = False,
    offline: Offline = False,
    dry_run: DryRun = False,
    progress: Bar = False,
) -> None:
    """Ablate the top-k detected heads together, and compare with equally many random, layer-matched and lowest-scoring heads.

    effect = metric(ablated) - metric(clean); negative = the heads helped. The prompts differ from those of the detection.
    """
    with usage_errors():
        budget = read_memory(memory)
        spec = ConfirmationSpec(
            detection=detection,
            task=task,
            prompts=prompts,
            n_prompts=n_prompts,
            ks=read_numbers("--ks", ks),
            n_draws=n_draws,
            ablation=ablation,
            positions=read_list(positions),
            metric=metric,
            specificity=read_list(specificity),
            seed=seed,
            device=device,
            revision=revision,
            offline=offline,
        )
        if settings:
            known, owner = task_parameters(spec.resolve().task)
            spec = replace(spec, task_options=parse_options(settings, known, owner))
    options = {"out": out, "fresh": fresh, "dry_run": dry_run, "progress": progress, "memory": budget}
    print_role_run(terminal, run_or_estimate(terminal, prepare(spec), **options))
