"""Detections, confirmations and circuits in processes of their own: planned, found again when they are finished, and started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.options import DEFAULT_DEVICE, DEFAULT_DTYPE
from interp_dashboard import detector_options, jobs

if TYPE_CHECKING:
    from interp.models.model import Model, ModelFacts
    from interp.store import StoredRun


@dataclass(frozen=True)
class JobPlan:
    """One that can be started: its command (the words after ``interp``), what it is (``spec``, as its run will hold it), where it will be
    stored, and the bytes of its process's own copy of the model."""

    words: tuple[str, ...]
    spec: dict[str, Any]
    folder: Path
    bytes: int

    def run(self) -> StoredRun | None:
        """The finished run, here or under another name beside it, None where it is still to be made. Raises ArtefactInvalid when its
        folder holds something else."""
        from interp.records import digest
        from interp.store import finished_run, list_runs, open_run

        if (own := finished_run(self.folder, self.spec)) is not None:
            return own
        others = (open_run(entry.path) for entry in list_runs(self.folder.parent) if entry.status == "finished")
        return next((run for run in others if run.manifest["spec_digest"] == digest(self.spec)), None)

    def start(self, query: Mapping[str, str]) -> jobs.Job:
        """The job, at work; ``query`` is the address of the page that asks for it.

        Raises ValueError when another works on it, MemoryBudgetExceeded when it would not fit the memory.
        """
        from interp.models.memory import available_memory, check_budget

        check_budget(self.bytes, available_memory(self.spec["device"]), f"A second {self.spec['model']}")
        return jobs.begin(self.folder, self.spec["model"], self.words, query)


def plan_detection(model: Model, role: str, values: Mapping[str, Any], root: Path, *, offline: bool = False) -> JobPlan:
    """The detection of a role with these options, in a folder of ``root``; nothing is started or stored."""
    from interp.cli.commands.detect import folder_name, spec_of
    from interp.detectors import DETECTORS
    from interp.options_text import settable

    usual = {name: about.default for name, about in settable(signature(DETECTORS.get(role)).parameters).items()}
    spec = spec_of(model, role, {**usual, **values})
    words = ("detect", role, "--model", model.facts.name, *detector_options.words(values), *_device_args(model, offline))
    return JobPlan(words, spec, root.resolve() / folder_name(spec), _bytes(model))


def plan_confirmation(
    model: Model,
    found: StoredRun,
    root: Path,
    *,
    task: str,
    n_prompts: int,
    seed: int,
    n_draws: int,
    ablation: str,
    offline: bool = False,
) -> JobPlan:
    """The confirmation of a stored detection on a task, in a folder of ``root``; nothing is started or stored.

    Raises ValueError for prompts that the heads were found on, and where too few heads remain as controls.
    """
    from interp.cli.commands.confirm import folder_name, spec_of
    from interp.cli.prompts import load_task
    from interp.confirmation import check_confirmation
    from interp.detectors import Detection
    from interp.store import load_detection

    detection = load_detection(found.path)
    assert isinstance(detection, Detection)
    question = load_task(model, task, None, n_prompts, seed)
    asked: dict[str, Any] = {"n_draws": n_draws, "ablation": ablation, "positions": ["all", "end"], "metric": "accuracy"}
    asked["ks"] = check_confirmation(detection, model, [question], ks=None, **asked)
    spec = spec_of(found, model, question, [], {**asked, "seed": seed})
    given = {"task": task, "n-prompts": n_prompts, "seed": seed, "n-draws": n_draws, "ablation": ablation}
    words = ["confirm", str(found.path), *(word for name, value in given.items() for word in (f"--{name}", str(value)))]
    words += ["--offline"] if offline else []
    return JobPlan(tuple(words), spec, root.resolve() / folder_name(spec), _bytes(model))


def plan_circuit(
    model: Model,
    root: Path,
    *,
    task: str | None,
    prompts: str | None = None,
    n_prompts: int,
    seed: int,
    method: str,
    ablation: str = "counterfactual",
    metric: str | None,
    offline: bool = False,
) -> JobPlan:
    """The circuit of a task, or of a file of prompts instead, in a folder of ``root``; nothing is started or stored.

    Raises ValueError for a model without edges, prompts without what the ablation or the metric needs, and for a metric without a
    gradient where one is needed.
    """
    from interp.cli.circuit_output import COUNTERFACTUAL
    from interp.cli.commands.circuit import asked_of, check_method, folder_name, spec_of
    from interp.cli.exit_codes import UsageError
    from interp.cli.prompts import discovery_and_test_tasks

    try:
        check_method(method, ablation)
        both = discovery_and_test_tasks(
            model, task, Path(prompts) if prompts else None, n_prompts, seed, paired=ablation == COUNTERFACTUAL
        )
    except UsageError as error:
        raise ValueError(str(error)) from None
    asked = asked_of(model, both, method, ablation, metric, seed=seed, **_default_options())
    spec = spec_of(model, *both, asked)
    given = {"model": model.facts.name, "task": task, "prompts": prompts, "method": method}
    given |= {"n-prompts": n_prompts if task else None, "seed": seed, "metric": metric}
    given |= {"ablation": None if ablation == COUNTERFACTUAL else ablation}
    told = (word for name, value in given.items() if value is not None for word in (f"--{name}", str(value)))
    words = ("circuit", *told, *_device_args(model, offline))
    return JobPlan(words, spec, root.resolve() / folder_name(spec), _bytes(model))


def find_stored_circuit(root: Path, facts: ModelFacts, device: str, task: str) -> dict[str, Any] | None:
    """What the page Circuit is told to show a circuit of this model on this device that lies in ``root``: the last one of this task, else
    of any; None where there is none."""
    from interp.store import list_runs, open_run

    entries = [entry for entry in list_runs(root) if entry.kind == "circuit" and entry.status == "finished"]
    specs = [
        spec for entry in entries if _same_model(spec := open_run(entry.path).spec, facts, device) and _is_page_circuit(spec)
    ]
    spec = next((spec for spec in specs if spec["task"] == task), specs[0] if specs else None)
    if spec is None:
        return None
    asked = {"task": spec["task"], "n_prompts": spec["arguments"]["n_prompts"], "seed": spec["seed"], "outcome": spec["metric"]}
    return {**asked, "circuit.method": spec["method"], "circuit.ablation": spec["ablation"]}


def _same_model(spec: dict[str, Any], facts: ModelFacts, device: str) -> bool:
    where = {"model": facts.name, "weights": facts.weights_digest, "dtype": facts.dtype}
    return all(spec.get(name) == value for name, value in where.items()) and spec.get("device") in (device, f"{device}:0")


def _is_page_circuit(spec: dict[str, Any]) -> bool:
    """Whether the page can ask for this circuit: of a task, with all that the page chooses, and as usual in what it leaves as it is."""
    chosen = {"task", "arguments", "seed", "metric", "method", "ablation"} <= spec.keys() and "n_prompts" in spec["arguments"]
    return chosen and all(spec.get(name, value) == value for name, value in _default_options().items())


def _default_options() -> dict[str, Any]:
    """What the page does not ask for."""
    from interp.cli.commands.circuit import circuit

    return {name: signature(circuit).parameters[name].default for name in ("size", "threshold", "draws", "steps")}


def _device_args(model: Model, offline: bool) -> list[str]:
    given = {"device": (str(model.device), DEFAULT_DEVICE), "dtype": (model.facts.dtype, DEFAULT_DTYPE)}
    told = [word for name, (value, usual) in given.items() if value != usual for word in (f"--{name}", value)]
    return told + (["--offline"] if offline else [])


def _bytes(model: Model) -> int:
    from interp.models.memory import ITEM_BYTES

    return model.facts.n_parameters * ITEM_BYTES[model.facts.dtype]
