"""`interp detect`: which heads, or which tokens, play a role; the answer is stored in a run directory.

Nothing is written before everything is measured: a wrong argument leaves no run directory behind.
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
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    Bar,
    Device,
    Dtype,
    Fresh,
    ModelName,
    Offline,
    Settings,
    load,
    read_memory,
)
from interp.cli.run_directory import find_finished_run, move_aside
from interp.cli.run_pictures import save_run_figures
from interp.cli.terminal import Terminal
from interp.options_text import parse_options, settable

if TYPE_CHECKING:
    from inspect import Parameter

    from interp.detectors import Detection, TokenDetection
    from interp.models.model import Model


@command
def detect(
    terminal: Terminal,
    role: Annotated[
        str | None, typer.Argument(metavar="[ROLE]", help="What to look for; without it, the roles are listed.")
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    settings: Settings = None,
    n_prompts: Annotated[
        int | None, typer.Option("--n-prompts", "-n", help="Prompts, of roles that are found on prompts.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts and shuffles.")] = 0,
    memory: Annotated[
        str | None, typer.Option(help="Budget above the loaded model, such as 2GB, of roles that take one.")
    ] = None,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/ROLE-MODEL-DIGEST.")] = None,
    fresh: Fresh = False,
    offline: Offline = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, with all settings.")] = False,
    progress: Bar = False,
) -> None:
    """Find the heads, or the tokens, that play a role, and say how often chance finds one.

    `interp detect` alone lists the roles and their settings. Whether the heads matter for a task asks `interp confirm`.
    """
    from interp.store import save_detection

    if role is None:
        return _list(terminal)
    options = _options(role, settings or [], n_prompts, seed, memory)
    loaded = load(model, device, dtype, offline)
    spec = spec_of(loaded, role, options)
    folder = out or Path("runs") / folder_name(spec)
    if dry_run:
        return _say_plan(terminal, spec, folder)
    run = find_finished_run(terminal, folder, spec, fresh)
    if run is None:
        found = _detect(terminal, loaded, role, options, progress)
        if fresh:
            move_aside(terminal, folder)
        run = save_detection(found, loaded.facts, folder, spec)
    save_run_figures(run)
    stored = load_role_run(run)
    assert stored is not None
    print_detection(terminal, stored)
    terminal.line(f"Stored in {run.path}. `interp show {shlex.quote(str(run.path))}` prints and draws it.")
    terminal.emit(detection_json(run, stored))
    return None


def _list(terminal: Terminal) -> None:
    from interp.detectors import DETECTORS

    rows = []
    for name in DETECTORS.entries():
        defaults = {option: p.default for option, p in settable(_parameters(name)).items()}
        rows.append({"name": name, "about": DETECTORS.describe(name), "settings": defaults})
    cells = [(r["name"], r["about"], " ".join(f"{n}={_written(v)}" for n, v in r["settings"].items())) for r in rows]
    terminal.table(("role", "says", "settings, for --set"), cells)
    terminal.emit({"roles": rows})


def _parameters(role: str) -> "dict[str, Parameter]":
    """The options of a detector."""
    from inspect import signature

    from interp.detectors import DETECTORS

    return {name: p for name, p in signature(DETECTORS.get(role)).parameters.items() if name not in ("model", "progress")}


def _options(role: str, settings: list[str], n_prompts: int | None, seed: int, memory: str | None) -> dict[str, Any]:
    """All settings of the detector. Raises for everything that can be known to be wrong before a model is loaded."""
    parameters = _parameters(role)
    known = settable(parameters)
    with usage_errors():
        given = parse_options(settings, parameters, f"The detector of {role!r}")
        flags = {"n_prompts": n_prompts, "seed": seed, "memory": read_memory(memory)}
    flags = {name: value for name, value in flags.items() if value is not None and (name != "seed" or "seed" in known)}
    twice = next((name for name in flags if name in given and name != "seed"), None)
    if twice is not None:
        raise UsageError(f"--{twice.replace('_', '-')} and --set {twice}= say the same: give one of them.")
    unknown = next((name for name in flags if name not in known), None)
    if unknown is not None:
        raise LookupError(f"The detector of {role!r} has no option {unknown!r}. There are: {', '.join(known)}.")
    return {name: p.default for name, p in known.items()} | flags | given


def spec_of(model: "Model", role: str, options: dict[str, Any]) -> dict[str, Any]:
    """What determines the numbers: two runs of the same spec are the same run."""
    facts = model.facts
    asked = {
        "model": facts.name,
        "weights": facts.weights_digest,
        "dtype": facts.dtype,
        "device": str(model.device),
        "role": role,
    }
    return {"kind": "detection", **asked, "options": {name: value for name, value in options.items() if name != "memory"}}


def folder_name(spec: dict[str, Any]) -> str:
    from interp.records import digest

    return f"{spec['role']}-{Path(spec['model']).name}-{digest(spec)[:8]}"


def _say_plan(terminal: Terminal, spec: dict[str, Any], folder: Path) -> None:
    settings = ", ".join(f"{name} {_written(value)}" for name, value in spec["options"].items())
    terminal.line(f"{spec['role']} in {spec['model']} with {settings}, to be stored in {folder}. Nothing was run.")
    terminal.emit({"dry_run": True, **spec, "out": str(folder)})


def _detect(terminal: Terminal, model: "Model", role: str, options: dict[str, Any], bar: bool) -> "Detection | TokenDetection":
    from inspect import signature

    from interp.detectors import DETECTORS
    from interp.detectors import detect as look

    began = time.perf_counter()
    with usage_errors(), terminal.progress(f"{role} in {model.facts.name}", bar) as progress:
        shown = {"progress": progress} if "progress" in signature(DETECTORS.get(role)).parameters else {}
        found = look(model, role, **options, **shown)
    terminal.say(f"Looked for {role} in {time.perf_counter() - began:.1f} s.")
    return found


def _written(value: Any) -> str:
    """As it is given to --set."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
