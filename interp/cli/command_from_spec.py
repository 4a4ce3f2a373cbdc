"""The form of a command that stores a run: its options are the fields of a specification, which it prepares, estimates or runs."""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from interp.cli.add_figures_to_run import save_run_figures
from interp.cli.command_decorator import command
from interp.cli.options import OPTIONS, Bar, DryRun, Fresh, Memory, Out, read_heads, read_list, read_memory, read_numbers
from interp.cli.terminal import Terminal
from interp.errors import settings_text
from interp.experiments.experiment import RUNS, Experiment, Spec
from interp.experiments.prompts import task_settings
from interp.experiments.usage_error import usage_errors
from interp.models.installed_models import quantised_remark

if TYPE_CHECKING:
    from interp.store import StoredRun

RUN_OPTIONS = {
    "memory": (Memory, None),
    "out": (Out, None),
    "fresh": (Fresh, False),
    "dry_run": (DryRun, False),
    "progress": (Bar, False),
}
HIDDEN = ("kind", "weights_digest", "examples", "test_examples", "tokens", "detection", "specificity")
"""Digests in an identity, which tell a reader nothing."""


@dataclass(frozen=True)
class Request:
    """What the options of one command say: ``values`` of the specification, and how it is to be run."""

    terminal: Terminal
    spec_class: type[Spec]
    values: dict[str, Any]
    memory: int | None
    out: Path | None
    fresh: bool
    dry_run: bool
    progress: bool

    def prepare(self, **more: Any) -> Experiment[Any]:
        """The experiment, with ``more`` values, on its loaded model. Raises UsageError for whatever is wrong with the request."""
        with usage_errors():
            return self.spec_class(**self.values, **more).prepare()

    def prepare_task(self, settings: list[str] | None) -> Experiment[Any]:
        """As ``prepare``, with the options of the task that ``--set`` sets."""
        with usage_errors():
            return self.prepare(task_options=task_settings(self.values["task"], settings)) if settings else self.prepare()

    def run(self, experiment: Experiment[Any] | None = None) -> "StoredRun | None":
        """The finished run with its figures; None after a dry run, which prints the estimate."""
        experiment = experiment or self.prepare()
        folder = self.out or RUNS / experiment.folder_name()
        if self.dry_run:
            return _print_plan(self.terminal, experiment, folder, self.memory)
        facts = experiment.model.facts
        if remark := quantised_remark(facts.name, facts.weights_form):
            self.terminal.say(remark)
        how: dict[str, Any] = {"fresh": self.fresh, "memory": self.memory, "notify": self.terminal.say}
        with self.terminal.progress(experiment.title(), self.progress) as show:
            run = experiment.run(folder, progress=show, **how)
        if os.access(run.path, os.W_OK):  # a finished run may be on a read-only disk
            save_run_figures(run)
        return run


def run_command(
    spec_class: type[Spec], options: Mapping[str, Any], skip: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """The decorator of ``function(terminal, request, ...)``: a command with the options of the function, those of the fields of
    ``spec_class`` that ``options`` or ``OPTIONS`` describe, but for those in ``skip``, and those of every run."""
    known = {name: option for name, option in {**OPTIONS, **options}.items() if name not in skip}
    hints = get_type_hints(spec_class)
    described = [
        _parameter(field, hints[field.name], known[field.name]) for field in spec_class.ordered_fields() if field.name in known
    ]
    how = [Parameter(n, Parameter.KEYWORD_ONLY, default=value, annotation=kind) for n, (kind, value) in RUN_OPTIONS.items()]

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        terminal, _, *own = signature(function).parameters.values()
        own_names = {p.name for p in own}
        shared = [p for p in how if p.name not in (*own_names, *skip)]

        @wraps(function)
        def run(terminal: Terminal, **given: Any) -> Any:
            with usage_errors():
                values = {p.name: _read(p.name, given[p.name], hints[p.name]) for p in described}
                memory = None if "memory" in own_names else read_memory(given.get("memory"))
                running: dict[str, Any] = {name: given.get(name) for name in RUN_OPTIONS} | {"memory": memory}
            return function(terminal, Request(terminal, spec_class, values, **running), **{n: given[n] for n in own_names})

        run.__signature__ = Signature([terminal, *(p.replace(kind=p.KEYWORD_ONLY) for p in own), *described, *shared])  # type: ignore[attr-defined]
        return command(run)

    return decorate


def print_location(terminal: Terminal, run: "StoredRun", what: str) -> None:
    """Where the run is stored, and that `interp show` does ``what`` with it."""
    terminal.line(f"Stored in {run.path}. `interp show {shlex.quote(str(run.path))}` {what}.")


def _parameter(field: "Field[Any]", hint: Any, option: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    if isinstance(default, tuple):
        hint, default = str | None, ", ".join(map(str, default)) or None
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, option])


def _read(name: str, value: Any, hint: Any) -> Any:
    """The value of a field; tuples are written with commas."""
    if hint == tuple[int, ...]:
        return read_numbers(f"--{name}", value)
    if name == "heads":
        return read_heads(value)
    return read_list(value) if hint == tuple[str, ...] else value


def _print_plan(terminal: Terminal, experiment: Experiment[Any], folder: Path, memory: int | None) -> None:
    with usage_errors():
        plan = experiment.plan(memory)
    terminal.line(f"{experiment.title()}: {plan.text}, to be stored in {folder}. Nothing was run.")
    settings: dict[str, Any] = {}
    for name, value in experiment.identity.items():
        if name not in HIDDEN:
            settings |= value if isinstance(value, dict) else {name: value}
    terminal.line(f"  {settings_text(settings)}")
    numbers = {"n_units": plan.n_units, "seconds": plan.seconds, "bytes": plan.bytes}
    terminal.emit({"dry_run": True, **experiment.identity, **numbers, "out": str(folder)})
