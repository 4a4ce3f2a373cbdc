"""From a specification to a stored run, on the terminal: prepared, estimated or run, with its figures."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.run_pictures import save_run_figures
from interp.cli.terminal import Terminal
from interp.experiments.experiment import RUNS, Experiment, Spec
from interp.experiments.usage import usage_errors

if TYPE_CHECKING:
    from interp.store import StoredRun

HIDDEN = ("kind", "weights_digest", "examples", "test_examples", "tokens", "detection", "specificity")
"""Digests in an identity, which tell a reader nothing."""


def prepare(spec: Spec) -> Experiment[Any]:
    """The experiment, whose model is loaded. Raises UsageError for whatever is wrong with the request."""
    with usage_errors():
        return spec.prepare()


def run_or_estimate(
    terminal: Terminal,
    experiment: Experiment[Any],
    *,
    out: Path | None,
    fresh: bool,
    dry_run: bool,
    progress: bool = False,
    memory: int | None = None,
) -> "StoredRun | None":
    """The finished run with its figures; None after a dry run, which prints the estimate."""
    folder = out or RUNS / experiment.folder_name()
    if dry_run:
        return _print_plan(terminal, experiment, folder, memory)
    with terminal.progress(experiment.title(), progress) as show:
        run = experiment.run(folder, progress=show, fresh=fresh, memory=memory, notify=terminal.say)
    save_run_figures(run)
    return run


def print_location(terminal: Terminal, run: "StoredRun", what: str) -> None:
    """Where the run is stored, and that `interp show` does ``what`` with it."""
    terminal.line(f"Stored in {run.path}. `interp show {shlex.quote(str(run.path))}` {what}.")


def _print_plan(terminal: Terminal, experiment: Experiment[Any], folder: Path, memory: int | None) -> None:
    from interp.models.memory import format_bytes

    with usage_errors():
        plan = experiment.plan(memory)
    seconds = f"about {plan.seconds:.1f} s plus loading, " if plan.seconds == plan.seconds else ""
    cost = f"{plan.n_units:,} units, {seconds}{format_bytes(plan.bytes)} in addition to the loaded model"
    terminal.line(f"{experiment.title()}: {cost}, to be stored in {folder}. Nothing was run.")
    terminal.line("  " + ", ".join(f"{name} {value}" for name, value in _settings(experiment.identity).items()))
    numbers = {"n_units": plan.n_units, "seconds": plan.seconds, "bytes": plan.bytes}
    terminal.emit({"dry_run": True, **experiment.identity, **numbers, "out": str(folder)})


def _settings(identity: dict[str, Any]) -> dict[str, Any]:
    """The readable values of an identity, those of its dictionaries as well."""
    settings: dict[str, Any] = {}
    for name, value in identity.items():
        if name not in HIDDEN:
            settings |= value if isinstance(value, dict) else {name: value}
    return settings
