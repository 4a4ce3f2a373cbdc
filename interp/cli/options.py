"""Options that several commands share, and how their text is read."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.experiments.experiment import Spec

DEFAULT_MODEL, DEFAULT_DEVICE, DEFAULT_DTYPE = Spec.model, str(Spec.device), Spec.dtype
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

OPTIONS: dict[str, Any] = {
    "model": typer.Option("--model", "-m", help="Name of `interp models`, folder, GGUF file, Hub name, or planted:NAME."),
    "task": typer.Option("--task", "-t", help="Task that supplies the prompts (`interp tasks`)."),
    "prompts": typer.Option(
        help="File of your own prompts, instead of a task: JSON Lines, a JSON array or CSV; - is standard input."
    ),
    "chat": typer.Option(
        "--chat", help="Write each of your own prompts as the user's message in the model's chat template, up to its reply."
    ),
    "n_prompts": typer.Option("--n-prompts", "-n", help="Number of prompts of the task."),
    "seed": typer.Option(min=0, help="Seed for prompts, resample pairings and bootstrap."),
    "metric": typer.Option(help="Metric of the answer (`interp metrics`); default: the task's."),
    "device": typer.Option(help="cpu, cuda, cuda:1, mps ..."),
    "dtype": typer.Option(help="float32, bfloat16, float16 or float64."),
    "revision": typer.Option(help="Branch, tag or commit of a Hub model."),
    "bos": typer.Option(help="Whether prompts begin with BOS: auto (decided from tokenizer and model), always or never."),
    "device_map": typer.Option(metavar="MAP", help="Let transformers place the layers on several devices: auto, balanced ..."),
    "max_memory": typer.Option(metavar="0=10GiB,...", help="With --device-map: memory that each device may use."),
    "offline": typer.Option("--offline", help="Never use the network; Hub models only from the local cache."),
}
"""The options of fields that several specifications have."""

ModelName = Annotated[str, OPTIONS["model"]]
Device = Annotated[str, OPTIONS["device"]]
Dtype = Annotated[str, OPTIONS["dtype"]]
Revision = Annotated[str | None, OPTIONS["revision"]]
Bos = Annotated[str, OPTIONS["bos"]]
DeviceMap = Annotated[str | None, OPTIONS["device_map"]]
MaxMemory = Annotated[str | None, OPTIONS["max_memory"]]
Offline = Annotated[bool, OPTIONS["offline"]]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set an option by name; repeatable.")]
Memory = Annotated[
    str | None, typer.Option(help="Memory budget in addition to the loaded model, such as 2GB; a resumed run keeps its own.")
]
Out = Annotated[
    Path | None, typer.Option(help="Run directory; default: a folder in runs/ named after inputs, model and digest.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start again; an earlier run in --out is moved aside.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only estimate time and memory; run and store nothing.")]
Bar = Annotated[bool, typer.Option("--progress", help="Show the progress bar even where stderr is not a terminal.")]


def read_memory(text: str | None) -> int | None:
    """Bytes written as ``2GB``, ``500 MiB`` or ``123456789``. Raises ValueError for anything else and for nothing at all."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    number = float(match[1]) * UNITS[match[2] or ""] if match else 0
    if number < 1:
        raise ValueError(f"--memory {text!r} is not an amount of memory: write 2GB, 500MiB or a number of bytes.")
    return int(number)


def read_heads(text: str | None) -> tuple[str, ...]:
    """The labels of heads written as ``L5H1,L2H3``. Raises ValueError for anything else and for none."""
    from interp.heads import Head  # imports numpy

    heads = tuple(str(Head.parse(part)) for part in read_list(text))
    if text is not None and not heads:
        raise ValueError(f"--heads {text!r} names no head: write L5H1,L2H3.")
    return heads


def read_numbers(option: str, text: str | None) -> tuple[int, ...]:
    """The numbers written as ``0,2-4``, ascending, each once. Raises ValueError for anything else."""
    numbers: set[int] = set()
    for part in () if text is None else text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"{option} {text!r} is not a list of numbers: write 0,2-4.")
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(numbers))


def read_list(text: str | None) -> tuple[str, ...]:
    """The parts between commas, without empty ones."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
