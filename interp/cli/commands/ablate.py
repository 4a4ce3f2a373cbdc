"""`interp ablate`: how much each head matters, by taking it out; the answer is stored in a run directory.

A run directory that is unfinished is resumed by the same command; one that is finished is left as it is.
"""

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.command import command
from interp.cli.drawings import save_pictures
from interp.cli.exits import UsageError, checking
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    Bar,
    Device,
    Dtype,
    Fresh,
    ModelName,
    Offline,
    load,
    move_aside,
    read_heads,
    read_memory,
)
from interp.cli.ranking import as_json, print_agreement, print_ranking
from interp.cli.terminal import Terminal

if TYPE_CHECKING:
    from interp.metrics.ablation import AblationPlan
    from interp.models.model import Model
    from interp.store import Run, Writer
    from interp.tasks.task import Task


@command
def ablate(
    terminal: Terminal,
    model: ModelName = DEFAULT_MODEL,
    task: Annotated[str | None, typer.Option("--task", "-t", help="What is asked (`interp tasks`).")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Your own prompts instead of a task: a JSON Lines file.")] = None,
    method: Annotated[str, typer.Option(help="zero, mean, resample, uniform, patch, attribution or adaptive.")] = "mean",
    ablation: Annotated[str, typer.Option(help="The ablation that attribution and adaptive estimate.")] = "mean",
    positions: Annotated[str, typer.Option(help="all, end, or a mark of the task.")] = "all",
    metric: Annotated[str | None, typer.Option(help="What is measured; by default the task's own metric.")] = None,
    n_prompts: Annotated[int, typer.Option("--n-prompts", "-n", help="Prompts of the task.")] = 64,
    seed: Annotated[int, typer.Option(help="Of prompts, donors and statistics.")] = 0,
    heads: Annotated[str | None, typer.Option(help="Only these: L5H1,L2H3.")] = None,
    layers: Annotated[str | None, typer.Option(help="Only the heads of these layers: 0,2-4.")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Every pair of the chosen heads as well.")] = False,
    top_share: Annotated[float, typer.Option(help="adaptive: share of the heads that is measured exactly.")] = 0.2,
    memory: Annotated[
        str | None, typer.Option(help="Budget above the loaded model, such as 2GB; a resumed run keeps its own.")
    ] = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/TASK-MODEL-METHOD-DIGEST.")] = None,
    fresh: Fresh = False,
    offline: Offline = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost in time and memory.")] = False,
    progress: Bar = False,
) -> None:
    """Take every head out of the model, one at a time, and rank them by what that changes.

    effect = metric(ablated) - metric(clean); negative = the head helped.
    """
    from interp.store.runs import begun_details

    budget = _check(task, prompts, method, ablation, metric, memory)
    loaded = load(model, device, dtype, offline)
    with checking():
        question = question_of(loaded, task, prompts, n_prompts, seed)
        options: dict[str, Any] = {
            "method": method,
            "positions": positions,
            "metric": metric or question.metric,
            "pairs": pairs,
        }
        options |= {
            "seed": seed,
            "ablation": ablation,
            "top_share": top_share,
            "heads": read_heads(heads, layers, loaded.facts),
        }
    if dry_run:
        return _say_cost(terminal, _plan(loaded, question, options, budget), loaded, question)
    spec = spec_of(loaded, question, options)
    folder = out or Path("runs") / folder_name(spec)
    begun = {} if fresh else begun_details(folder, spec)
    _plan(loaded, question, options, begun.get("memory", budget))
    if fresh and (moved := move_aside(folder)):
        terminal.say(f"The earlier run was moved to {moved}.")
    run = _measure(terminal, folder, spec, loaded, question, options | {"memory": budget}, progress)
    save_pictures(run)
    _report(terminal, run)
    return None


def _check(
    task: str | None, prompts: Path | None, method: str, ablation: str, metric: str | None, memory: str | None
) -> int | None:
    """The memory budget. Raises for everything that can be known to be wrong before a model is loaded."""
    from interp.metrics.ablation import ABLATIONS, METHODS
    from interp.metrics.outcomes import OUTCOMES
    from interp.tasks import TASKS

    if (task is None) == (prompts is None):
        raise UsageError(f"Give either --task or --prompts FILE.jsonl. Tasks: {', '.join(TASKS.names())}.")
    for name, known, noun in ((task, TASKS.names(), "task"), (metric, OUTCOMES.names(), "metric")):
        if name is not None and name not in known:
            raise LookupError(f"No {noun} is called {name!r}. There are: {', '.join(known)}.")
    for name, choices, noun in ((method, METHODS, "method"), (ablation, ABLATIONS, "ablation")):
        if name not in choices:
            raise LookupError(f"No {noun} is called {name!r}. There are: {', '.join(choices)}.")
    if prompts is not None and not prompts.is_file():
        raise UsageError(f"There is no file {prompts}.")
    with checking():
        return read_memory(memory)


def question_of(
    model: "Model", task: str | None, prompts: Path | None, n_prompts: int, seed: int, options: Mapping[str, Any] | None = None
) -> "Task":
    """The task with its own ``options``, or the prompts of the file as one. Raises UsageError where there are too few for an interval."""
    from interp.tasks import make_task, task_from_jsonl

    if prompts is not None:
        question = task_from_jsonl(prompts, model)
    else:
        assert task is not None
        question = make_task(task, model, n_prompts=n_prompts, seed=seed, **(options or {}))
    if len(question) < 2:
        raise UsageError(
            f"An interval over prompts needs at least 2 of them, and {question.name} has {len(question)}: give more."
        )
    return question


def _plan(model: "Model", task: "Task", options: dict[str, Any], budget: int | None) -> "AblationPlan":
    """What the sweep will cost; here everything that is wrong with its arguments comes to light before anything is stored."""
    from interp.metrics.ablation import plan_ablation

    with checking():
        return plan_ablation(model, task, **options, memory=budget)


def _say_cost(terminal: Terminal, plan: "AblationPlan", model: "Model", task: "Task") -> None:
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
        "weights": facts.weights,
        "dtype": facts.dtype,
        "device": str(model.device),
        "task": task.name,
    }
    heads = [str(head) for head in options["heads"]] if options["heads"] else "all"
    return {"kind": "ablation", **asked, "arguments": task.arguments, "examples": task.digest(), **options, "heads": heads}


def folder_name(spec: dict[str, Any]) -> str:
    """What the run directory of a spec is called where nothing else is said."""
    from interp.records import digest

    return f"{spec['task']}-{Path(spec['model']).name}-{spec['method']}-{digest(spec)[:8]}"


def _measure(
    terminal: Terminal, folder: Path, spec: dict, model: "Model", task: "Task", options: dict[str, Any], bar: bool
) -> "Run":
    """The finished run in ``folder``, measured there as far as it was not yet."""
    from interp.store import open_run, start_run

    with start_run(folder, spec, memory=options["memory"]) as writer:
        if writer.finished:
            terminal.say(f"{folder} holds this run already, finished; nothing was computed. --fresh measures again.")
            return open_run(folder)
        began, done_before = time.perf_counter(), writer.ledger.count()
        if done_before:
            terminal.say(f"Resuming {folder}: {done_before} units are done.")
        budget = writer.details["memory"]
        if options["memory"] not in (None, budget):
            kept = "the default memory budget" if budget is None else f"a memory budget of {budget:,} bytes"
            terminal.say(f"This run was begun with {kept} and goes on with it: --fresh measures anew with the one given now.")
        run = _sweep(terminal, writer, model, task, options | {"memory": budget}, bar)
    seconds = time.perf_counter() - began
    terminal.say(f"Measured {len(run.heads())} ablations on {len(task)} prompts in {seconds:.1f} s.")
    return run


def _sweep(terminal: Terminal, writer: "Writer", model: "Model", task: "Task", options: dict[str, Any], bar: bool) -> "Run":
    """Runs the sweep and publishes its tables. An interrupt says how to go on."""
    from interp.metrics.ablation import ablate_heads
    from interp.store import save_sweep

    try:
        with terminal.progress(f"{task.name} on {model.facts.name}", bar) as progress:
            result = ablate_heads(model, task, **options, ledger=writer.ledger, progress=progress)
        return save_sweep(writer, result, model.facts, options["seed"])
    except KeyboardInterrupt:
        again = shlex.join(["interp", *sys.argv[1:]])
        raise KeyboardInterrupt(
            f"Interrupted: {writer.ledger.count()} units are stored in {writer.path}. To go on, run the same command again: {again}"
        ) from None


def _report(terminal: Terminal, run: "Run") -> None:
    """The strongest heads, and where everything is."""
    print_ranking(terminal, run.heads(), top=5)
    print_agreement(terminal, run)
    terminal.line(f"Stored in {run.path}. `interp show {shlex.quote(str(run.path))}` prints all heads.")
    terminal.emit(as_json(run))
