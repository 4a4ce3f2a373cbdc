"""Options that several commands share, and how their text is read."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.exit_codes import usage_errors
from interp.heads import Head

if TYPE_CHECKING:
    from interp.models.model import Model, ModelFacts

DEFAULT_MODEL, DEFAULT_DEVICE, DEFAULT_DTYPE = "interp-mini", "cpu", "float32"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

ModelName = Annotated[str, typer.Option("--model", "-m", help="Embedded model, local folder or Hub name (`interp models`).")]
TaskName = Annotated[str | None, typer.Option("--task", "-t", help="What is asked (`interp tasks`).")]
Prompts = Annotated[Path | None, typer.Option(help="Your own prompts instead of a task: a JSON Lines file.")]
NPrompts = Annotated[int, typer.Option("--n-prompts", "-n", help="Prompts of the task.")]
Metric = Annotated[str | None, typer.Option(help="What is measured; by default the task's own metric.")]
Memory = Annotated[str | None, typer.Option(help="Budget above the loaded model, such as 2GB; a resumed run keeps its own.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option by name; may be repeated.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start anew; an earlier run in --out is moved aside.")]
Bar = Annotated[bool, typer.Option("--progress", help="Draw the progress bar even where stderr is no terminal.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the network; Hub models only from the local cache.")]


def load(name: str, device: str, dtype: str, offline: bool) -> "Model":
    """The loaded model. Raises ModelUnavailable when it cannot be had, UsageError for a wrong device, dtype or kind of model."""
    from interp.models import load_model

    with usage_errors():
        return load_model(name, device=device, dtype=dtype, offline=offline)


def read_memory(text: str | None) -> int | None:
    """Bytes written as ``2GB``, ``500 MiB`` or ``123456789``. Raises ValueError for anything else and for nothing at all."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    number = float(found[1]) * UNITS[found[2] or ""] if found else 0
    if number < 1:
        raise ValueError(f"--memory {text!r} is not an amount of memory: write 2GB, 500MiB or a number of bytes.")
    return int(number)


def read_heads(heads: str | None, layers: str | None, facts: "ModelFacts") -> list[Head] | None:
    """The heads named by ``--heads L5H1,L2H3`` or ``--layers 0,2-4``; None for all. LookupError for those that do not exist."""
    if heads is not None and layers is not None:
        raise ValueError("--heads and --layers both choose heads: give one of them.")
    if heads is not None:
        named = [facts.check_head(Head.parse(part)) for part in heads.split(",") if part.strip()]
        if not named:
            raise ValueError(f"--heads {heads!r} names no head: write L5H1,L2H3.")
        return list(dict.fromkeys(named))
    if layers is None:
        return None
    chosen = read_numbers("--layers", layers)
    if chosen[-1] >= facts.n_layers:
        raise LookupError(f"Layer {chosen[-1]} does not exist: {facts.name} has layers 0-{facts.n_layers - 1}.")
    return [head for head in facts.heads() if head.layer in chosen]


def read_numbers(option: str, text: str) -> list[int]:
    """The numbers written as ``0,2-4``, ascending, each once. Raises ValueError for anything else."""
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise ValueError(f"{option} {text!r} is not a list of numbers: write 0,2-4.")
        numbers.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return sorted(numbers)
