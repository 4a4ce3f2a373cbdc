"""Confirmation of a detection: the task with the top-k detected heads ablated together, compared with control heads.

``effect = metric(ablated) - metric(clean)``; negative = the heads helped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from interp.experiments.experiment import ResumableExperiment, Spec, python_arguments, python_task
from interp.experiments.prompts import check_prompts, load_task, performance_sentences

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import CostEstimate
    from interp.confirmation import Confirmation
    from interp.detectors import Detection
    from interp.models.model import Model
    from interp.store import RunWriter, StoredRun
    from interp.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class ConfirmationSpec(Spec):
    """What ``confirm`` is to measure with the heads of a stored detection (``detection``, a run directory), in the model of the detection.

    ``task`` is by default the one that the role is needed for, ``seed`` one more than that of the detection, ``ks`` those for which
    control heads remain; ``task_options`` belong to the task; ``specificity`` are tasks that should not need these heads.
    """

    command: ClassVar[str] = "confirm"
    explicit: ClassVar[tuple[str, ...]] = ()
    positional: ClassVar[tuple[str, ...]] = ("detection",)

    detection: str
    model: str = ""
    device: str | None = None
    task: str | None = None
    prompts: str | None = None
    chat: bool = False
    task_options: Mapping[str, Any] = field(default_factory=dict)
    n_prompts: int = 64
    seed: int | None = None
    ks: tuple[int, ...] = ()
    n_draws: int = 5
    ablation: str = "mean"
    positions: tuple[str, ...] = ("all", "end")
    metric: str = "accuracy"
    specificity: tuple[str, ...] = ()

    def check(self) -> None:
        self.resolve()

    def load_model(self) -> Model:
        from interp.models import load_model

        record = self._load_detection().record
        bos = (record.bos or "auto") if self.bos == "auto" else self.bos
        device = self.device or ("cpu" if self.device_map else record.device)
        more = {name: getattr(self, name) for name in ("revision", "offline", "device_map", "max_memory")}
        return load_model(record.model, device=device, dtype=record.dtype, bos=bos, **more)

    def on(self, model: Model, *, offline: bool = False) -> ConfirmationSpec:
        return replace(self, offline=offline)

    def bind(self, model: Model) -> ConfirmationExperiment:
        from interp.confirmation import check_confirmation

        detection, spec = self._load_detection(), self.resolve()
        assert spec.seed is not None
        task = load_task(model, spec.task, spec.prompts, spec.n_prompts, spec.seed, spec.task_options, chat=spec.chat)
        controls = [load_task(model, name, None, spec.n_prompts, spec.seed) for name in spec.specificity]
        ks = check_confirmation(detection, model, [task, *controls], ks=list(spec.ks) or None, **spec.options())
        return ConfirmationExperiment(self, model, detection, task, controls, ks, spec.seed)

    def options(self) -> dict[str, Any]:
        """The arguments of ``confirm`` that need no model."""
        chosen = {"n_draws": self.n_draws, "ablation": self.ablation, "metric": self.metric}
        return {**chosen, "positions": list(self.positions)}

    def option(self, name: str, value: Any) -> list[str]:
        return [] if name == "model" else super().option(name, value)

    def to_python(self) -> str:
        spec = self.resolve()
        assert spec.seed is not None
        more = spec.options() | {"seed": spec.seed} | ({"ks": list(self.ks)} if self.ks else {})
        tasks = ", ".join(python_task(name, None, self.n_prompts, spec.seed) for name in self.specificity)
        controls = f", specificity=[{tasks}]" if tasks else ""
        device = repr(self.device) if self.device else "'cpu'" if self.device_map else "detection.record.device"
        load = ["detection.record.model", f"device={device}", "dtype=detection.record.dtype"]
        load += ["bos=detection.record.bos or 'auto'"] if self.bos == "auto" else [f"bos={self.bos!r}"]
        load += [
            f"{name}={getattr(self, name)!r}"
            for name in ("revision", "offline", "device_map", "max_memory")
            if getattr(self, name)
        ]
        return (
            "import interp\nfrom interp.store import load_detection\n\n"
            f"detection = load_detection({self.detection!r})\n"
            f"model = interp.load_model({', '.join(load)})\n"
            f"task = {python_task(spec.task, spec.prompts, self.n_prompts, spec.seed, dict(self.task_options), chat=spec.chat)}\n"
            f"confirmation = interp.confirm(detection, model, task, {python_arguments(**more)}{controls})\n"
        )

    def _load_detection(self) -> Detection:
        """The stored detection. Raises ArtefactInvalid where there is none, ValueError for one of tokens."""
        from interp.detectors import TokenDetection
        from interp.store import load_detection

        detection = load_detection(self.detection)
        if isinstance(detection, TokenDetection):
            raise ValueError(
                f"{self.detection} holds tokens ({detection.role}), and only heads can be ablated: give a detection of heads."
            )
        return detection

    def resolve(self) -> ConfirmationSpec:
        """The same with task and seed filled in. Raises ValueError, LookupError or FileNotFoundError for prompts that are not there."""
        from interp.detectors import default_task
        from interp.tasks import TASKS

        detection, known = self._load_detection(), TASKS.names()
        if self.task and self.prompts:
            raise ValueError("--task and --prompts both choose the prompts: give one of them.")
        named = detection.record.task if detection.record.task != detection.role else None  # without a task: its role
        task = self.task or (named if named in known else None)
        if not task and not self.prompts and not (task := default_task(detection.role)):
            raise ValueError(
                f"No task is known to need {detection.role} heads: give --task or --prompts FILE.jsonl. Tasks: {', '.join(known)}."
            )
        task = None if self.prompts else task
        check_prompts(task, self.prompts, self.chat)
        return replace(self, task=task, seed=detection.record.seed + 1 if self.seed is None else self.seed)


@dataclass(frozen=True)
class ConfirmationExperiment(ResumableExperiment[ConfirmationSpec]):
    """The confirmation of the top ``ks`` heads of a detection on a task and, where given, control tasks."""

    kind: ClassVar[str] = "confirmation"
    detection: Detection
    task: Task
    control_tasks: list[Task]
    ks: list[int]
    seed: int

    def inputs(self) -> dict[str, Any]:
        from interp.store import open_run

        run, task = open_run(self.spec.detection), self.task
        detected = {"role": run.manifest["details"]["detection"]["role"], "detection": run.manifest["files"]}
        measured = {"task": task.name, "arguments": task.arguments, "examples": task.digest()}
        options = {**self.spec.options(), "ks": self.ks, "seed": self.seed}
        return {**detected, **measured, **options, "specificity": {other.name: other.digest() for other in self.control_tasks}}

    def name_parts(self) -> tuple[str, ...]:
        return "confirm", self.detection.role, self.task.name, self.model_name

    def title(self) -> str:
        return (
            f"the ablation of {self.detection.role.removesuffix('_heads')} heads on {self.task.size_text} of {self.task.name}"
        )

    def plan(self, memory: int | None = None) -> CostEstimate:
        """The units of all sets of heads, tasks and positions; seconds from one timed pass."""
        from interp.ablation.ablate_heads import CostEstimate, seconds_per_work
        from interp.confirmation import draw_sets, plan_confirmation
        from interp.metrics.outcomes import OUTCOMES

        sets, _ = draw_sets(self.detection, self.ks, self.spec.n_draws, self.seed)
        groups = list({frozenset(s.heads): s.heads for s in sets}.values())
        outcome, spec = OUTCOMES.get(self.spec.metric), self.spec
        plans = plan_confirmation(self.model, self._tasks, spec.positions, groups, spec.ablation, outcome, memory)
        seconds = seconds_per_work(self.model, self.task) * sum(plan.work for plan in plans)
        return CostEstimate(sum(plan.n_units for plan in plans), max(plan.bytes for plan in plans), seconds)

    def performance_sentences(self) -> list[str]:
        return performance_sentences(self.model, self._tasks, self.spec.metric)

    @property
    def _tasks(self) -> list[Task]:
        return [self.task, *self.control_tasks]

    def measure(self, **options: Any) -> Confirmation:
        from interp.confirmation import confirm

        how = {**self.spec.options(), "ks": self.ks, "specificity": self.control_tasks, "seed": self.seed}
        return confirm(self.detection, self.model, self.task, **how, **options)

    def publish(self, writer: RunWriter, result: Confirmation) -> StoredRun:
        from interp.store.confirmations import write_confirmation

        return write_confirmation(writer, result, self.model.facts)
