"""`interp attention`: metrics of every head's attention pattern, on a text of any length or the prompts of a task."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.command import command
from interp.cli.experiment_runner import print_location, run_or_estimate
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    Device,
    DryRun,
    Dtype,
    Fresh,
    Memory,
    ModelName,
    NPrompts,
    Offline,
    Out,
    Prompts,
    Revision,
    Seed,
    TaskName,
    read_list,
    read_memory,
)
from interp.cli.ranking_output import as_json, print_metrics, print_undefined
from interp.cli.terminal import Terminal
from interp.experiments.attention import AttentionSpec
from interp.experiments.usage import usage_errors

if TYPE_CHECKING:
    from interp.experiments.attention import AttentionExperiment


@command
def attention(
    terminal: Terminal,
    model: ModelName = DEFAULT_MODEL,
    text: Annotated[str | None, typer.Option(help="A text.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="A file with one text, of any length.")] = None,
    task: TaskName = None,
    prompts: Prompts = None,
    metrics: Annotated[
        str, typer.Option(help="Names from `interp metrics`, with parameters: entropy,windowed_distance:window=20.")
    ] = ",".join(AttentionSpec.metrics),
    n_prompts: NPrompts = AttentionSpec.n_prompts,
    seed: Seed = AttentionSpec.seed,
    memory: Memory = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    revision: Revision = None,
    out: Out = None,
    headvis: Annotated[
        Path | None, typer.Option(help="Also write a HeadVis tree here: its six numbers per head, and patterns as sparse rows.")
    ] = None,
    fresh: Fresh = False,
    offline: Offline = False,
    dry_run: DryRun = False,
) -> None:
    """Measure metrics of every head's attention pattern, on a text or on the prompts of a task.

    Stores one number per head, one per token (the mean over all heads), and the values at every query and key.
    """
    from interp.store.headvis import check_empty

    with usage_errors():
        budget = read_memory(memory)
    if headvis is not None:
        check_empty(headvis)
    spec = AttentionSpec(
        model=model,
        text=text,
        file=file,
        task=task,
        prompts=prompts,
        metrics=read_list(metrics),
        n_prompts=n_prompts,
        seed=seed,
        device=device,
        dtype=dtype,
        revision=revision,
        offline=offline,
    )
    with usage_errors():
        experiment = spec.prepare()
    if headvis is not None and not dry_run:
        _export(terminal, experiment, headvis, out, fresh)
    run = run_or_estimate(terminal, experiment, out=out, fresh=fresh, dry_run=dry_run, memory=budget)
    if run is None:
        return
    print_metrics(terminal, run)
    print_undefined(terminal, run, run.heads())
    print_location(terminal, run, "prints and draws it")
    terminal.emit(as_json(run))


def _export(terminal: Terminal, experiment: "AttentionExperiment", folder: Path, out: Path | None, fresh: bool) -> None:
    """Writes the HeadVis tree from the queries and keys of a pass of its own, once it is known that the run can be stored."""
    from interp.engine import capture_attention
    from interp.store import export_headvis

    target = experiment.target(out, lambda sentence: None)
    target.holds_run() if fresh else target.finished()
    with usage_errors():
        path = export_headvis(capture_attention(experiment.model, experiment.prompts), folder, experiment.name)
    terminal.say(f"Wrote a HeadVis tree to {path}.")
