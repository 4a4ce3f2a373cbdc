"""`interp ablate`: the effect of ablating each head, stored in a run directory.

The same command resumes an unfinished run directory and leaves a finished one as it is.
"""

from typing import Annotated

import typer

from interp.cli.command import command
from interp.cli.experiment_runner import prepare, print_location, run_or_estimate
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    Bar,
    Device,
    DryRun,
    Dtype,
    Fresh,
    Memory,
    Metric,
    ModelName,
    NPrompts,
    Offline,
    Out,
    Prompts,
    Revision,
    Seed,
    TaskName,
    read_heads,
    read_memory,
    read_numbers,
)
from interp.cli.ranking_output import as_json, print_agreement, print_ranking
from interp.cli.terminal import Terminal
from interp.experiments.ablation import AblationSpec
from interp.experiments.usage import usage_errors


@command
def ablate(
    terminal: Terminal,
    model: ModelName = DEFAULT_MODEL,
    task: TaskName = None,
    prompts: Prompts = None,
    ablation: Annotated[
        str, typer.Option(help="NAME[:option=value,...] of `interp ablations`, such as mean or streaming:n_sink=4,n_recent=64.")
    ] = AblationSpec.ablation,
    estimator: Annotated[
        str,
        typer.Option(
            help="exact; attribution (gradient estimate); adaptive (gradient estimate, then exact for the top share)."
        ),
    ] = AblationSpec.estimator,
    positions: Annotated[
        str, typer.Option(help="Ablated positions: all, end, or a mark of the task.")
    ] = AblationSpec.positions,
    metric: Metric = None,
    n_prompts: NPrompts = AblationSpec.n_prompts,
    seed: Seed = AblationSpec.seed,
    heads: Annotated[str | None, typer.Option(help="Only these heads: L5H1,L2H3.")] = None,
    layers: Annotated[str | None, typer.Option(help="Only the heads of these layers: 0,2-4.")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also ablate every pair of the chosen heads.")] = False,
    top_share: Annotated[
        float, typer.Option(help="adaptive: share of the heads that is measured exactly.")
    ] = AblationSpec.top_share,
    memory: Memory = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    revision: Revision = None,
    out: Out = None,
    fresh: Fresh = False,
    offline: Offline = False,
    dry_run: DryRun = False,
    progress: Bar = False,
) -> None:
    """Ablate every attention head, one at a time, and rank the heads by the effect on the metric.

    effect = metric(ablated) - metric(clean); negative = the head helped.
    """
    with usage_errors():
        budget = read_memory(memory)
        spec = AblationSpec(
            model=model,
            task=task,
            prompts=prompts,
            ablation=ablation,
            estimator=estimator,
            positions=positions,
            metric=metric,
            n_prompts=n_prompts,
            seed=seed,
            heads=read_heads(heads),
            layers=read_numbers("--layers", layers),
            pairs=pairs,
            top_share=top_share,
            device=device,
            dtype=dtype,
            revision=revision,
            offline=offline,
        )
    options = {"out": out, "fresh": fresh, "dry_run": dry_run, "progress": progress, "memory": budget}
    if (run := run_or_estimate(terminal, prepare(spec), **options)) is None:
        return
    print_ranking(terminal, run.heads(), top=5)
    print_agreement(terminal, run)
    print_location(terminal, run, "prints all heads")
    terminal.emit(as_json(run))
