"""`interp ablate`: how much each head matters, by taking it out; the answer is stored in a run directory.

A run directory that is unfinished is resumed by the same command; one that is finished is left as it is.
"""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.command import command
from interp.cli.exit_codes import usage_errors
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    Bar,
    Device,
    Dtype,
    Fresh,
    Memory,
    Metric,
    ModelName,
    NPrompts,
    Offline,
    Prompts,
    TaskName,
    load,
    read_heads,
    read_memory,
)
from interp.cli.prompts import check_task_options, load_task
from interp.cli.ranking_output import as_json, print_agreement, print_ranking
from interp.cli.run_directory import move_aside, resumable_run
from interp.cli.run_pictures import save_run_figures
from interp.cli.terminal import Terminal
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import CostEstimate
    from interp.models.model import Model
    from interp.store import StoredRun
    from interp.tasks.task import Task


@command
def ablate(
    terminal: Terminal,
    model: ModelName = DEFAULT_MODEL,
    task: TaskName = None,
    prompts: Prompts = None,
    ablation: Annotated[str, typer.Option(help="zero, mean, resample, patch or uniform.")] = "mean",
    estimator: Annotated[str, typer.Option(help="exact, attribution or adaptive.")] = "exact",
    positions: Annotated[str, typer.Option(help="all, end, or a mark of the task.")] = "all",
    metric: Metric = None,
    n_prompts: NPrompts = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts, donors and statistics.")] = 0,
    heads: Annotated[str | None, typer.Option(help="Only these: L5H1,L2H3.")] = None,
    layers: Annotated[str | None, typer.Option(help="Only the heads of these layers: 0,2-4.")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Every pair of the chosen heads as well.")] = False,
    top_share: Annotated[float, typer.Option(help="adaptive: share of the heads that is measured exactly.")] = 0.2,
    memory: Memory = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/TASK-MODEL-ABLATION-DIGEST.")] = None,
    fresh: Fresh = False,
    offline: Offline = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost in time and memory.")] = False,
    progress: Bar = False,
) -> None:
    """Take every head out of the model, one at a time, and rank them by what that changes.

    effect = metric(ablated) - metric(clean); negative = the head helped.
    """
    from interp.store.run_directory import stored_details

    budget = _check(task, prompts, ablation, estimator, metric, memory)
    loaded = load(model, device, dtype, offline)
    with usage_errors():
        question = load_task(loaded, task, prompts, n_prompts, seed)
        options: dict[str, Any] = {
            "ablation": ablation,
            "estimator": estimator,
            "positions": positions,
            "metric": metric or question.metric,
            "pairs": pairs,
        }
        options |= {
            "seed": seed,
            "top_share": top_share,
            "heads": read_heads(heads, layers, loaded.facts),
        }
    if dry_run:
        return _say_cost(terminal, _plan(loaded, question, options, budget), loaded, question)
    spec = spec_of(loaded, question, options)
    folder = out or Path("runs") / folder_name(spec)
    begun = {} if fresh else stored_details(folder, spec)
    _plan(loaded, question, options, begun.get("memory", budget))
    if fresh:
        move_aside(terminal, folder)
    run = _measure(terminal, folder, spec, loaded, question, options | {"memory": budget}, progress)
    save_run_figures(run)
    _report(terminal, run)
    return None


def _check(
    task: str | None, prompts: Path | None, ablation: str, estimator: str, metric: str | None, memory: str | None
) -> int | None:
    """The memory budget. Raises for everything that can be known to be wrong before a model is loaded."""
    from interp.ablation.ablate_heads import ABLATIONS, ESTIMATORS
    from interp.metrics.outcomes import OUTCOMES

    check_task_options(task, prompts)
    if metric is not None:
        check_name(metric, OUTCOMES.names(), "metric")
    check_name(ablation, ABLATIONS, "ablation")
    check_name(estimator, ESTIMATORS, "estimator")
    with usage_errors():
        return read_memory(memory)


def _plan(model: "Model", task: "Task", options: dict[str, Any], budget: int | None) -> "CostEstimate":
    """What the sweep will cost; here everything that is wrong with its arguments comes to light before anything is stored."""
    from interp.ablation.ablate_heads import estimate_cost

    with usage_errors():
        return estimate_cost(model, task, **options, memory=budget)


def _say_cost(terminal: Terminal, plan: "CostEstimate", model: "Model", task: "Task") -> None:
    terminal.line(
        f"{model.facts.name}, {task.name}, {len(task)} prompts: {plan.n_units} units, about {plan.seconds:.1f} s and "
        f"{plan.bytes / 2**20:,.1f} MiB above the loaded model. Nothing was run."
    )
    cost = {"n_units": plan.n_units, "seconds": plan.seconds, "bytes": plan.bytes}
    terminal.emit({"dry_run": True, "model": model.facts.name, "task": task.name, "n_prompts": len(task), **cost})


def spec_of(model: "Model", task: "Task", options: dict[str, Any]) -> dict[str, Any]:
    """What determines the numbers: two runs of the same spec are the same run."""
    facts = model.facts
    asked = {
        "model": facts.name,
        "weights": facts.weights_digest,
        "dtype": facts.dtype,
        "device": str(model.device),
        "task": task.name,
    }
    heads = [str(head) for head in options["heads"]] if options["heads"] else "all"
    return {"kind": "ablation", **asked, "arguments": task.arguments, "examples": task.digest(), **options, "heads": heads}


def folder_name(spec: dict[str, Any]) -> str:
    """What the run directory of a spec is called where nothing else is said."""
    from interp.records import digest

    estimator = "" if spec["estimator"] == "exact" else f"-{spec['estimator']}"
    return f"{spec['task']}-{Path(spec['model']).name}-{spec['ablation']}{estimator}-{digest(spec)[:8]}"


def _measure(
    terminal: Terminal, folder: Path, spec: dict, model: "Model", task: "Task", options: dict[str, Any], bar: bool
) -> "StoredRun":
    """The finished run in ``folder``, measured there as far as it was not yet."""
    from interp.ablation.ablate_heads import ablate_heads
    from interp.store import open_run, write_ablation

    with resumable_run(terminal, folder, spec, options["memory"]) as writer:
        if writer.finished:
            return open_run(folder)
        began = time.perf_counter()
        with terminal.progress(f"{task.name} on {model.facts.name}", bar) as progress:
            given = {**options, **writer.details, "ledger": writer.ledger, "progress": progress}
            result = ablate_heads(model, task, **given)
        run = write_ablation(writer, result)
    seconds = time.perf_counter() - began
    terminal.say(f"Measured {len(run.heads())} ablations on {len(task)} prompts in {seconds:.1f} s.")
    return run


def _report(terminal: Terminal, run: "StoredRun") -> None:
    """The strongest heads, and where everything is."""
    print_ranking(terminal, run.heads(), top=5)
    print_agreement(terminal, run)
    terminal.line(f"Stored in {run.path}. `interp show {shlex.quote(str(run.path))}` prints all heads.")
    terminal.emit(as_json(run))
