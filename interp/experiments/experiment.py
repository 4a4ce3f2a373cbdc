"""What the specifications and experiments of all kinds have in common.

A ``Spec`` is a frozen dataclass of plain values that says what to run. ``check`` raises for everything that is wrong with it before a
model is loaded. ``prepare`` loads the model (or takes a loaded one), makes the prompts and returns the ``Experiment``. Its ``identity``
is what determines the numbers: it is stored as ``spec`` in run.json, and two runs of equal identity are the same run.
"""

from __future__ import annotations

import json
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import Field, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from interp.experiments.run_folder import Notify, RunFolder
from interp.experiments.usage_error import UsageError, usage_errors
from interp.files import user_path
from interp.options_text import option_text
from interp.registry import extension_code

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import CostEstimate
    from interp.models.model import Model
    from interp.store import RunWriter, StoredRun

RUNS = Path("runs")
LONG = 5.0
"""Estimated seconds from which a run says beforehand what it will cost."""
LONGEST_NAME = 200
"""Bytes of a folder name before the digest; file systems allow 255 with it and with the number of an earlier run."""

FIRST = ("model", "task", "prompts", "chat", "method", "n_prompts", "seed")
LAST = ("device", "dtype", "revision", "offline", "bos", "device_map", "max_memory")
"""The order of options on a command line; the others stand between these, in the order of the fields."""

S = TypeVar("S", bound="Spec")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Spec(ABC):
    """Base of the specifications. ``revision`` (branch, tag or commit) belongs to Hub models; ``offline`` uses only the local Hub cache;
    ``bos`` (auto, always or never) says whether prompts begin with BOS; ``device_map`` and ``max_memory`` (``0=10GiB,cpu=20GiB``) place
    the layers on several devices."""

    command: ClassVar[str]
    """The word after ``interp``."""
    explicit: ClassVar[tuple[str, ...]] = ("model",)
    """Options that are written even where they have their default."""
    positional: ClassVar[tuple[str, ...]] = ()

    model: str = "interp-mini"
    device: str | None = "cpu"
    dtype: str = "float32"
    revision: str | None = None
    offline: bool = False
    bos: str = "auto"
    device_map: str | None = None
    max_memory: str | None = None

    @abstractmethod
    def check(self) -> None:
        """Raises LookupError for unknown names, ValueError and FileNotFoundError for whatever else is wrong before a model is loaded."""

    @abstractmethod
    def bind(self, model: Model) -> Experiment[Any]:
        """The experiment on a loaded model. Raises ValueError or LookupError for what does not fit the model or its prompts."""

    @abstractmethod
    def to_python(self) -> str:
        """Python code that computes the same numbers."""

    def prepare(self, model: Model | None = None) -> Experiment[Any]:
        """The experiment on the model that this specification names, or on ``model``, which must be that one. Raises as ``check``, as
        ``load_model`` and as ``bind``."""
        self.check()
        return self.bind(model or self.load_model())

    def load_model(self) -> Model:
        from interp.models import load_model

        return load_model(
            self.model, device=self.device or "cpu", **{name: getattr(self, name) for name in LAST if name != "device"}
        )

    def on(self, model: Model, *, offline: bool = False) -> Spec:
        """The same specification for a model that is loaded."""
        facts = model.facts
        bos = facts.bos if facts.bos_reason else "auto"
        return replace(self, model=facts.name, device=str(model.device), dtype=facts.dtype, offline=offline, bos=bos)

    def digest(self, model: Model | None = None) -> str:
        """16 hexadecimal digits, equal for runs that have the same numbers."""
        return self.prepare(model).digest()

    def folder_name(self, model: Model | None = None) -> str:
        """The default name of the run directory; it ends in the first eight digits of the digest."""
        return self.prepare(model).folder_name()

    def plan(self, model: Model | None = None, *, memory: int | None = None) -> CostEstimate:
        """Units of work, bytes in addition to the loaded model, and seconds (NaN where unknown); nothing is run but one timed pass."""
        return self.prepare(model).plan(memory)

    def run(self, folder: str | Path | None = None, *, model: Model | None = None, **options: Any) -> StoredRun:
        """The finished run in ``folder``; options as of ``Experiment.run``."""
        return self.prepare(model).run(folder, **options)

    @classmethod
    def ordered_fields(cls) -> list[Field[Any]]:
        """The fields in the order of the command line."""
        by_name = {f.name: f for f in fields(cls)}
        between = [name for name in by_name if name not in (*FIRST, *LAST)]
        return [by_name[name] for name in (*FIRST, *between, *LAST) if name in by_name]

    def to_argv(self) -> list[str]:
        """The words after ``interp``: the options that differ from their defaults."""
        words = [self.command, *(str(getattr(self, name)) for name in self.positional)]
        for f in self.ordered_fields():
            value = getattr(self, f.name)
            if f.name not in self.positional and (f.name in self.explicit or value != f.default):
                words += self.option(f.name, value)
        return words

    def option(self, name: str, value: Any) -> list[str]:
        """One field as words of the command line; each entry of a mapping is a ``--set``."""
        if value is None or value == () or (name == "n_prompts" and getattr(self, "prompts", None)):
            return []
        if isinstance(value, Mapping):
            return [word for key, setting in value.items() for word in ("--set", f"{key}={option_text(setting)}")]
        flag = f"--{name.replace('_', '-')}"
        return [flag] if value is True else [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]

    def python_model(self) -> str:
        """Code that imports ``interp`` and loads the model."""
        defaults = {f.name: f.default for f in fields(Spec)}
        given = {name: getattr(self, name) for name in LAST if getattr(self, name) != defaults[name]}
        return f"import interp\n\nmodel = interp.load_model({python_arguments(self.model, **given)})\n"


@dataclass(frozen=True)
class Experiment(ABC, Generic[S]):
    """A specification bound to a model and its prompts."""

    spec: S
    model: Model
    kind: ClassVar[str]

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """What determines the numbers beside the model, as JSON values."""

    @abstractmethod
    def name_parts(self) -> tuple[str, ...]:
        """The parts of the folder name before the digest."""

    @abstractmethod
    def plan(self, memory: int | None = None) -> CostEstimate:
        """Units of work, bytes in addition to the loaded model, and seconds (NaN where unknown)."""

    def n_stored_units(self) -> int | None:
        """How many units of work the run will store on its way; None where that is not known beforehand, or none are stored."""
        return None

    @abstractmethod
    def title(self) -> str:
        """What is computed, in a few words."""

    @abstractmethod
    def compute(self, target: RunFolder, progress: Progress | None, fresh: bool, memory: int | None) -> StoredRun:
        """The finished run in ``target``; arguments and errors as of ``run``."""

    def run(
        self,
        folder: str | Path | None = None,
        *,
        progress: Progress | None = None,
        fresh: bool = False,
        memory: int | None = None,
        notify: Notify = lambda sentence: None,
    ) -> StoredRun:
        """The finished run in ``folder`` (default: ``folder_name`` in ``runs``), computed as far as it is not there yet.

        ``progress`` is called with (done, total); ``fresh`` moves an earlier run aside; ``memory`` is the budget in bytes in addition to
        the loaded model; ``notify`` receives remarks. Raises UsageError for what does not fit the model or its prompts, ArtefactInvalid
        when the folder holds something else, MemoryBudgetExceeded above the budget.
        """
        return self.compute(self.target(folder, notify), progress, fresh, memory)

    @cached_property
    def identity(self) -> dict[str, Any]:
        facts = self.model.facts
        where = {
            "model": facts.name,
            "weights_digest": facts.weights_digest,
            "dtype": facts.dtype,
            "device": str(self.model.device),
        }
        bos = {"prepend_bos": facts.prepend_bos} if facts.bos_reason else {}  # earlier runs all followed the convention
        inputs = self.inputs()
        names = re.findall(r"\w+", json.dumps(inputs, allow_nan=False))
        code = extension_code(set(names))  # changed code of another package makes another run
        return {"kind": self.kind, **where, **bos, **inputs, **({"extensions": code} if code else {})}

    def digest(self) -> str:
        """16 hexadecimal digits of the identity."""
        from interp.records import digest

        return digest(self.identity)

    def folder_name(self) -> str:
        """The default name of the run directory, of at most ``LONGEST_NAME`` bytes and the first eight digits of the digest."""
        named = "-".join(self.name_parts()).encode()[:LONGEST_NAME].decode(errors="ignore")
        return f"{named}-{self.digest()[:8]}"

    @property
    def model_name(self) -> str:
        """The name of the model without its folder."""
        return Path(self.model.facts.name).name

    def target(self, folder: str | Path | None, notify: Notify) -> RunFolder:
        return RunFolder(user_path(folder) if folder else RUNS / self.folder_name(), self.identity, notify)


class OneShotExperiment(Experiment[S]):
    """An experiment that stores nothing before everything is computed: an error or an interruption leaves no run directory behind."""

    @abstractmethod
    def measure(self, progress: Progress | None, memory: int | None, notify: Notify) -> Any:
        """The result. Raises ValueError or LookupError for a wrong argument."""

    @abstractmethod
    def save(self, result: Any, folder: Path) -> StoredRun: ...

    def compute(self, target: RunFolder, progress: Progress | None, fresh: bool, memory: int | None) -> StoredRun:
        if fresh:
            target.holds_run()
        elif (run := target.finished()) is not None:
            return run
        start = perf_counter()
        with usage_errors():
            result = self.measure(progress, memory, target.notify)
        target.notify(f"Computed {self.title()} in {perf_counter() - start:.1f} s.")
        if fresh:
            target.move_aside()
        return self.save(result, target.path)


class ResumableExperiment(Experiment[S]):
    """An experiment that stores each unit of work: an interrupted run is resumed by the same specification, with the same numbers."""

    @abstractmethod
    def measure(self, **options: Any) -> Any:
        """The result, from units in ``ledger``; ``options`` are memory, ledger and progress."""

    @abstractmethod
    def publish(self, writer: RunWriter, result: Any) -> StoredRun: ...

    def performance_sentences(self) -> list[str]:
        """How well the unchanged model does the tasks of the run, which long work says before it starts; empty without answers."""
        return []

    def compute(self, target: RunFolder, progress: Progress | None, fresh: bool, memory: int | None) -> StoredRun:
        from interp.store import finished_run, open_run
        from interp.store.run_directory import stored_details

        stored, moved = {} if fresh else stored_details(target.path, self.identity), None
        if fresh or finished_run(target.path, self.identity) is None:
            with usage_errors():
                plan = self.plan(stored.get("memory", memory))
            if plan.seconds > LONG:
                target.notify(f"Computing {self.title()}: {plan.text}.")
                with usage_errors():
                    for sentence in self.performance_sentences():
                        target.notify(sentence)
        if fresh:
            moved = target.move_aside()
        with target.resume(memory, shlex.join(["interp", *self.spec.to_argv(), "--out", str(target.path)])) as writer:
            if writer.finished:
                return open_run(target.path)
            start = perf_counter()
            try:
                result = self.measure(memory=writer.details["memory"], ledger=writer.ledger, progress=progress)
            except UsageError as error:  # what is wrong with some requests shows only in their numbers
                if not isinstance(error.__cause__, OSError):
                    self._discard(writer, target, moved)
                raise
            run = self.publish(writer, result)
        target.notify(f"Computed {self.title()} in {perf_counter() - start:.1f} s.")
        return run

    @staticmethod
    def _discard(writer: RunWriter, target: RunFolder, moved: Path | None) -> None:
        """Leaves what was there before a request that cannot be carried out."""
        writer.discard()
        if moved and not target.path.exists():
            moved.rename(target.path)
            target.notify(f"The earlier run is in {target.path} again.")
        if target.path.parent == RUNS:
            with suppress(OSError):
                RUNS.rmdir()  # unless it holds other runs


def python_arguments(*positional: Any, **keyword: Any) -> str:
    """The arguments of a call as Python code."""
    return ", ".join([*map(repr, positional), *(f"{name}={value!r}" for name, value in keyword.items())])


def python_task(
    task: str | None,
    prompts: str | None,
    n_prompts: int,
    seed: int,
    options: dict[str, Any] | None = None,
    *,
    chat: bool = False,
) -> str:
    """Code that makes the task, or reads the file of prompts."""
    if prompts is not None:
        return f"interp.task_from_jsonl({prompts!r}, model{', chat=True' if chat else ''})"
    more = {"n_prompts": n_prompts, "seed": seed, **(options or {})}
    return f"interp.make_task({task!r}, model, {python_arguments(**more)})"
