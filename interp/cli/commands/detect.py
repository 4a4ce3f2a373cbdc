"""`interp detect`: the heads, or the tokens, that have a role, stored in a run directory."""

from typing import Annotated, Any

import typer

from interp.cli.command_from_spec import Request, run_command
from interp.cli.detection_and_confirmation_output import print_role_run
from interp.cli.detector_settings_table import print_settings
from interp.cli.options import Settings, read_memory
from interp.cli.terminal import Terminal
from interp.experiments.detection import DetectionSpec, detector_options
from interp.experiments.usage_error import UsageError, usage_errors
from interp.options_text import parse_options, setting_text


@run_command(DetectionSpec, {})
def detect(
    terminal: Terminal,
    request: Request,
    role: Annotated[str | None, typer.Argument(metavar="ROLE", help="The role; without it, the roles are listed.")] = None,
    settings: Settings = None,
    n_prompts: Annotated[
        int | None, typer.Option("--n-prompts", "-n", help="Number of prompts (detectors that use prompts only).")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for prompts and nulls; default: the detector's.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory budget in addition to the loaded model, such as 2GB (detectors that accept one).")
    ] = None,
) -> None:
    """Detect the heads, or the tokens, that have a role, at a threshold that models without the role rarely exceed.

    `interp detect` alone lists the roles and their settings, `interp detect ROLE --help` explains those of one. `interp confirm` tests
    whether the heads matter for a task.
    """
    if role is None:
        return _list(terminal)
    with usage_errors():
        flags = {"n_prompts": n_prompts, "seed": seed, "memory": read_memory(memory)}
        options = _options(role, settings or [], {name: value for name, value in flags.items() if value is not None})
    return print_role_run(terminal, request.run(request.prepare(role=role, options=options)))


def _explain_role(arguments: list[str]) -> None:
    """Prints what the detector of the role among the arguments of a call for help does, and its settings."""
    from interp.detectors import DETECTORS

    role = next((word for word in arguments if word in DETECTORS.names()), None)
    if role is None:
        return
    print_settings(Terminal(), role)


detect.more_help = _explain_role  # type: ignore[attr-defined]


def _list(terminal: Terminal) -> None:
    from interp.detectors import DETECTORS

    rows = []
    for name in DETECTORS.entries():
        defaults = {option: p.default for option, p in detector_options(name).items()}
        rows.append({"name": name, "about": DETECTORS.describe(name), "settings": defaults})
    cells = [(r["name"], r["about"], " ".join(f"{n}={setting_text(v)}" for n, v in r["settings"].items())) for r in rows]
    terminal.table(("role", "description", "settings, for --set"), cells)
    terminal.emit({"roles": rows})


def _options(role: str, settings: list[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The options of the detector, from ``--set`` and from the flags of their own."""
    options = parse_options(settings, detector_options(role), f"Detector {role!r}")
    if repeated := next((name for name in flags if name in options), None):
        raise UsageError(f"--{repeated.replace('_', '-')} and --set {repeated}= set the same option: give one of them.")
    return flags | options
