"""`interp confirm`: whether the heads of a detection matter for a task, beside random ones; stored in a run directory.

A run directory that is unfinished is resumed by the same command; one that is finished is left as it is.
"""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.command import command
from interp.cli.detection_output import detection_json, load_role_run, print_detection
from interp.cli.exit_codes import UsageError, usage_errors
from interp.cli.options import (
    Bar,
    Fresh,
    Memory,
    NPrompts,
    Offline,
    Prompts,
    Settings,
    load,
    read_memory,
    read_numbers,
)
from interp.cli.prompts import check_task_options, load_task
from interp.cli.run_directory import move_aside, resumable_run
from interp.cli.run_pictures import save_run_figures
from interp.cli.terminal import Terminal
from interp.options_text import parse_options

if TYPE_CHECKING:
    from interp.detectors import Detection
    from interp.models.model import Model
    from interp.store import StoredRun
    from interp.tasks.task import Task


@command
def confirm(
    terminal: Terminal,
    path: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory of a detection (`interp detect`).")],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="What is asked (`interp tasks`); by default the role's.")
    ] = None,
    prompts: Prompts = None,
    settings: Settings = None,
    n_prompts: NPrompts = 64,
    ks: Annotated[
        str | None, typer.Option(help="How many heads to take out: 1,2,5; by default what controls remain for.")
    ] = None,
    n_draws: Annotated[int, typer.Option(help="Number of random draws of control heads, at least 5.")] = 5,
    ablation: Annotated[str, typer.Option(help="mean, zero, resample or uniform.")] = "mean",
    positions: Annotated[str, typer.Option(help="all, end, marks of the task; several with commas.")] = "all,end",
    metric: Annotated[str, typer.Option(help="What is measured (`interp metrics`).")] = "accuracy",
    specificity: Annotated[str | None, typer.Option(help="Tasks that should not need these heads, with commas.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of prompts, draws and statistics; by default one more than the detection's.")
    ] = None,
    memory: Memory = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...; by default as in the detection.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/confirm-ROLE-TASK-MODEL-DIGEST.")] = None,
    fresh: Fresh = False,
    offline: Offline = False,
    progress: Bar = False,
) -> None:
    """Take the heads that were found out of the model, the first k together, and as many random, layer-matched and bottom heads.

    effect = metric(ablated) - metric(clean); negative = the heads helped. The prompts are others than those of the detection.
    """
    from interp.detectors import TokenDetection
    from interp.store import load_detection, open_run

    with usage_errors():
        budget, wanted = read_memory(memory), read_numbers("--ks", ks) if ks is not None else None
    detection = load_detection(path)
    if isinstance(detection, TokenDetection):
        raise UsageError(f"{path} holds tokens ({detection.role}), and what is taken out are heads: give a detection of heads.")
    names = _tasks(detection.role, detection.record.task, task, prompts)
    seed = detection.record.seed + 1 if seed is None else seed
    loaded = load(detection.record.model, device or detection.record.device, detection.record.dtype, offline)
    with usage_errors():
        question = load_task(loaded, names, prompts, n_prompts, seed, _task_options(names, settings or []))
        others = [load_task(loaded, other, None, n_prompts, seed) for other in _listed(specificity)]
        options: dict[str, Any] = {"n_draws": n_draws, "ablation": ablation, "positions": _listed(positions), "metric": metric}
        options["ks"] = _check(detection, loaded, [question, *others], wanted, options)
    spec = spec_of(open_run(path), loaded, question, others, {**options, "seed": seed})
    folder = out or Path("runs") / folder_name(spec)
    if fresh:
        move_aside(terminal, folder)
    options |= {"seed": seed, "specificity": others, "memory": budget}
    run = _measure(terminal, folder, spec, detection, loaded, question, options, progress)
    save_run_figures(run)
    found = load_role_run(run)
    assert found is not None
    print_detection(terminal, found)
    terminal.line(f"Stored in {run.path}. `interp show {shlex.quote(str(run.path))}` prints and draws it.")
    terminal.emit(detection_json(run, found))


def _tasks(role: str, asked: str, task: str | None, prompts: Path | None) -> str | None:
    """The task's name, None for prompts of one's own. Raises for what can be known to be wrong before a model is loaded."""
    from interp.detectors import default_task
    from interp.tasks import TASKS

    known = TASKS.names()
    if task and prompts:
        raise UsageError("--task and --prompts both say what is asked: give one of them.")
    name = None if prompts else task or (asked if asked in known else default_task(role))
    if not name and not prompts:
        raise UsageError(
            f"No task is known to need {role} heads: give --task or --prompts FILE.jsonl. Tasks: {', '.join(known)}."
        )
    check_task_options(name, prompts)
    return name


def _task_options(task: str | None, settings: list[str]) -> dict[str, Any]:
    from inspect import signature

    from interp.tasks import TASKS

    if task is None:
        return parse_options(settings, {}, "A file of prompts")
    own = list(signature(TASKS.get(task).function).parameters.items())[2:]
    return parse_options(settings, dict(own), f"Task {task!r}")


def _check(
    detection: "Detection", model: "Model", tasks: "list[Task]", ks: list[int] | None, options: dict[str, Any]
) -> list[int]:
    """The numbers of heads. Everything that is wrong with the arguments comes to light here, before anything is stored."""
    from interp.confirmation import check_confirmation

    return check_confirmation(detection, model, tasks, ks=ks, **options)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def spec_of(found: "StoredRun", model: "Model", task: "Task", others: "list[Task]", options: dict[str, Any]) -> dict[str, Any]:
    """What determines the numbers: two runs of the same spec are the same run."""
    facts = model.facts
    asked = {"model": facts.name, "weights": facts.weights_digest, "dtype": facts.dtype, "device": str(model.device)}
    asked |= {"role": found.manifest["details"]["detection"]["role"], "detection": found.manifest["files"]}
    asked |= {"task": task.name, "arguments": task.arguments, "examples": task.digest()}
    return {"kind": "confirmation", **asked, **options, "specificity": {other.name: other.digest() for other in others}}


def folder_name(spec: dict[str, Any]) -> str:
    from interp.records import digest

    return f"confirm-{spec['role']}-{spec['task']}-{Path(spec['model']).name}-{digest(spec)[:8]}"


def _measure(
    terminal: Terminal,
    folder: Path,
    spec: dict[str, Any],
    detection: "Detection",
    model: "Model",
    task: "Task",
    options: dict[str, Any],
    bar: bool,
) -> "StoredRun":
    """The finished run in ``folder``, measured there as far as it was not yet."""
    from interp.confirmation import confirm as measure
    from interp.store import open_run
    from interp.store.detections import write_confirmation

    with resumable_run(terminal, folder, spec, options["memory"]) as writer:
        if writer.finished:
            return open_run(folder)
        began = time.perf_counter()
        with terminal.progress(f"{detection.role} on {task.name}", bar) as progress:
            given = {**options, **writer.details, "ledger": writer.ledger, "progress": progress}
            found = measure(detection, model, task, **given)
        run = write_confirmation(writer, found, model.facts)
    terminal.say(f"Took {len(found.table)} sets of heads out on {len(task)} prompts in {time.perf_counter() - began:.1f} s.")
    return run
