"""`interp tasks`: the tasks that supply prompts, and whether a model does one of them."""

from typing import Annotated, Any

import typer

from interp.cli.command_decorator import command
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    OPTIONS,
    Bos,
    Device,
    Dtype,
    ModelName,
    Offline,
    Revision,
    Settings,
)
from interp.cli.terminal import Terminal
from interp.experiments.prompts import check_prompts, load_task, task_settings
from interp.experiments.usage_error import UsageError, usage_errors

N_PROMPTS = 32


@command
def tasks(
    terminal: Terminal,
    check: Annotated[
        list[str] | None,
        typer.Argument(metavar="check TASK|FILE", help="Check a task, or a file of your own prompts, on a model."),
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    n_prompts: Annotated[int, OPTIONS["n_prompts"]] = N_PROMPTS,
    seed: Annotated[int, OPTIONS["seed"]] = 0,
    metric: Annotated[str | None, OPTIONS["metric"]] = None,
    chat: Annotated[bool, OPTIONS["chat"]] = False,
    settings: Settings = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    revision: Revision = None,
    offline: Offline = False,
    bos: Bos = "auto",
) -> None:
    """List the tasks with their description, metric and marks, or check one: `interp tasks check ioi --model gpt2`.

    A check says how many words are single tokens, how clean and corrupted prompts align, how many prompts the model gets right, and the gap
    between clean and corrupted prompts. `interp tasks check mine.jsonl` checks your own prompts.
    """
    if not check:
        return _list(terminal)
    if len(check) != 2 or check[0] != "check":
        wrong = "`check` needs one task or one file" if check[0] == "check" else f"`interp tasks` has no action {check[0]!r}"
        raise UsageError(f"{wrong}: write `interp tasks check TASK` or `interp tasks check FILE.jsonl`.")
    from interp.metrics import check_task
    from interp.models import load_model

    task, prompts = _task_or_file(check[1])
    with usage_errors():
        check_prompts(task, prompts, chat)
        options = task_settings(task, settings)
        how: dict[str, Any] = {"device": device, "dtype": dtype, "revision": revision, "offline": offline, "bos": bos}
        loaded = load_model(model, **how)
        loaded.facts.check_causal("The check of a task")
        found = check_task(loaded, load_task(loaded, task, prompts, n_prompts, seed, options, chat=chat), metric, seed=seed)
    for line in found.lines():
        terminal.line(line)
    return terminal.emit(found.to_json())


def _task_or_file(name: str) -> tuple[str | None, str | None]:
    """The name of a task, or that of a file. A name without a dot, a slash or a dash is that of a task."""
    from interp.tasks import TASKS

    return (name, None) if name in TASKS.names() or name.replace("_", "a").isalnum() else (None, name)


def _list(terminal: Terminal) -> None:
    from interp.tasks import TASKS

    known = TASKS.entries().values()
    rows = [{"name": t.name, "about": t.about, "metric": t.metric, "marks": list(t.marks), "paper": t.paper} for t in known]
    terminal.table(
        ("task", "description", "metric", "marks", "paper"),
        [(r["name"], r["about"], r["metric"], ", ".join(r["marks"]), r["paper"]) for r in rows],
    )
    terminal.emit({"tasks": rows})
