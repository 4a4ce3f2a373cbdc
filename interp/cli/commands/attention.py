"""`interp attention`: where each head looks, read while the rows pass by; no pattern is stored, so a text may be of any length.

Nothing is written before everything is read: a wrong argument leaves no run directory behind.
"""

import hashlib
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.command import command
from interp.cli.exit_codes import UsageError, usage_errors
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    Device,
    Dtype,
    ModelName,
    NPrompts,
    Offline,
    load,
    read_memory,
)
from interp.cli.ranking_output import as_json, print_metrics, print_undefined
from interp.cli.run_directory import find_finished_run, move_aside
from interp.cli.run_pictures import save_run_figures
from interp.cli.terminal import Terminal
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.engine.attention.attention_observer import AttentionMetric, Observation
    from interp.models.model import Model
    from interp.tasks.task import Task

DEFAULT_METRICS = "attention_distance,entropy,received_attention,self_attention_score,prev_token_score,induction_score"


@dataclass(frozen=True)
class TextInput:
    """What is read: a task or the token ids of one text, its name, what it was made with, and a digest of all of it."""

    prompts: "Task | list[int]"
    name: str
    arguments: dict[str, Any]
    digest: str


@command
def attention(
    terminal: Terminal,
    model: ModelName = DEFAULT_MODEL,
    text: Annotated[str | None, typer.Option(help="The text itself.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A file that holds one text, however long.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="The prompts of a task (`interp tasks`).")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Your own prompts: a JSON Lines file.")] = None,
    metrics: Annotated[
        str, typer.Option(help="Names from `interp metrics`, with parameters: entropy,windowed_distance:window=20.")
    ] = DEFAULT_METRICS,
    n_prompts: NPrompts = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the task's prompts.")] = 0,
    memory: Annotated[str | None, typer.Option(help="Budget above the loaded model, such as 2GB.")] = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/attention-SOURCE-MODEL-DIGEST.")] = None,
    headvis: Annotated[
        Path | None, typer.Option(help="Also write a HeadVis tree here: its six numbers a head, and patterns as sparse rows.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Read anew; an earlier run in --out is moved aside.")] = False,
    offline: Offline = False,
) -> None:
    """Read metrics of every head's attention on a text, or on the prompts of a task.

    Stores one number a head, one a token (the mean over all heads), and every row and column.
    """
    from interp.store import save_observation
    from interp.store.headvis import check_empty

    given = {"--text": text, "--file": file, "--task": task, "--prompts": prompts}
    chosen, budget = _check(given, metrics, memory)
    if headvis is not None:
        check_empty(headvis)
    loaded = load(model, device, dtype, offline)
    with usage_errors():
        source = _source(loaded, given, n_prompts, seed)
    spec = _spec(loaded, source, chosen, seed)
    folder = out or Path("runs") / f"attention-{Path(source.name).stem}-{Path(loaded.facts.name).name}-{_short(spec)}"
    run = find_finished_run(terminal, folder, spec, fresh)
    if headvis is not None:
        _export(terminal, loaded, source, headvis)
    if run is None:
        found = _observe(terminal, loaded, source, chosen, seed, budget)
        if fresh:
            move_aside(terminal, folder)
        run = save_observation(found, loaded.facts, folder, spec)
    save_run_figures(run)
    print_metrics(terminal, run)
    print_undefined(terminal, run, run.heads())
    terminal.line(f"Stored in {run.path}. `interp show {shlex.quote(str(run.path))}` prints and draws it.")
    terminal.emit(as_json(run))


def _check(given: dict[str, Any], metrics: str, memory: str | None) -> tuple[list["AttentionMetric"], int | None]:
    """The metrics and the memory budget. Raises for everything that can be known to be wrong before a model is loaded."""
    from interp.tasks import TASKS

    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        got = f"{' and '.join(named)} do not go together" if named else "What to read is missing"
        raise UsageError(f"{got}: give one of {', '.join(given)}. Tasks: {', '.join(TASKS.names())}.")
    if given["--task"] is not None:
        check_name(given["--task"], TASKS.names(), "task")
    for name in ("--file", "--prompts"):
        if given[name] is not None and not given[name].is_file():
            raise UsageError(f"There is no file {given[name]}.")
    with usage_errors():
        return _metrics(metrics), read_memory(memory)


def _metrics(text: str) -> list["AttentionMetric"]:
    from interp.metrics import attention_metrics

    chosen = attention_metrics([part.strip() for part in text.split(",") if part.strip()])
    if not chosen:
        raise ValueError(f"--metrics {text!r} names no metric: write entropy,attention_distance (`interp metrics` lists them).")
    names = [metric.name for metric in chosen]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"--metrics names {twice[0]} twice: a run holds each metric once; read the other one into another --out."
        )
    images = [metric.name for metric in chosen if "grid" in metric.needs]
    if images:
        raise ValueError(f"{images[0]} is a metric of image patches, and this command reads text: leave it out.")
    return chosen


def _source(model: "Model", given: dict[str, Any], n_prompts: int, seed: int) -> TextInput:
    from interp.records import digest
    from interp.tasks import make_task, task_from_jsonl

    if given["--text"] is not None or given["--file"] is not None:
        name, text, arguments = _read_text(given["--text"], given["--file"])
        ids = model.to_tokens(text)
        return TextInput(ids, name, {**arguments, "n_tokens": len(ids)}, digest([ids]))
    if given["--prompts"] is not None:
        task = task_from_jsonl(given["--prompts"], model)
    else:
        task = make_task(given["--task"], model, n_prompts=n_prompts, seed=seed)
    size = {"n_prompts": len(task), "n_tokens": sum(len(example.clean) for example in task)}
    return TextInput(task, task.name, {**task.arguments, **size}, task.digest())


def _read_text(text: str | None, file: Path | None) -> tuple[str, str, dict[str, Any]]:
    """Name, text, and what to record of it."""
    if file is None:
        assert text is not None
        if not text.strip():
            raise ValueError("--text is empty: give at least one word.")
        return "text", text, {}
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text (byte {error.start:,}): save it as UTF-8.") from None
    if not text.strip():
        raise ValueError(f"{file} is empty: give a file with at least one word.")
    return file.name, text, {"file": file.name, "sha256": hashlib.sha256(content).hexdigest()}


def _warn_of_unknown_words(terminal: Terminal, model: "Model", source: TextInput) -> None:
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    if isinstance(source.prompts, list) and (n := sum(token == unknown for token in source.prompts)):
        terminal.say(f"Note: {model.facts.name} does not know all words: {n:,} of {len(source.prompts):,} tokens are unknown.")


def _spec(model: "Model", source: TextInput, metrics: list["AttentionMetric"], seed: int) -> dict[str, Any]:
    """What determines the numbers: two runs of the same spec are the same run."""
    facts = model.facts
    asked = {"model": facts.name, "weights": facts.weights_digest, "dtype": facts.dtype, "device": str(model.device)}
    asked |= {"source": source.name, "arguments": source.arguments, "tokens": source.digest, "seed": seed}
    return {"kind": "attention", **asked, "metrics": [metric.label for metric in metrics]}


def _short(spec: dict[str, Any]) -> str:
    from interp.records import digest

    return digest(spec)[:8]


def _observe(
    terminal: Terminal, model: "Model", source: TextInput, metrics: list["AttentionMetric"], seed: int, memory: int | None
) -> "Observation":
    from interp.metrics import observe_attention

    began = time.perf_counter()
    with usage_errors():
        found = observe_attention(model, source.prompts, metrics, memory=memory)
    seconds, n_tokens = time.perf_counter() - began, source.arguments["n_tokens"]
    _warn_of_unknown_words(terminal, model, source)
    terminal.say(f"Read {len(metrics)} metrics of {len(model.facts.heads())} heads on {n_tokens:,} tokens in {seconds:.1f} s.")
    return replace(found, record=replace(found.record, task=source.name, arguments=source.arguments, seed=seed))


def _export(terminal: Terminal, model: "Model", source: TextInput, folder: Path) -> None:
    """Writes the HeadVis tree, from queries and keys of a pass of its own: another one than the metrics are read in."""
    from interp.engine import capture_attention
    from interp.store import export_headvis

    with usage_errors():
        path = export_headvis(capture_attention(model, source.prompts), folder, source.name)
    terminal.say(f"Wrote a HeadVis tree to {path}.")
