"""Detection of heads, or tokens, with a role, at a threshold calibrated on a null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ClassVar

from interp.experiments.experiment import ResumableExperiment, Spec, python_arguments
from interp.experiments.usage_error import usage_errors
from interp.options_text import settable
from interp.registry import check_options

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import CostEstimate
    from interp.detectors import Detection, TokenDetection
    from interp.models.model import Model
    from interp.store import RunWriter, StoredRun

PLANNED_LENGTH = 2048
"""Tokens of the text that the estimate of memory assumes, where the context is not shorter."""


RUNNING = ("model", "ledger", "progress")
"""Parameters of detectors that say how they run, not what they look for; a detector has those that it can use."""


def detector_options(role: str) -> dict[str, Parameter]:
    """The options of a detector that can be written as text. Raises LookupError for an unknown role."""
    from interp.detectors import DETECTORS

    own = {name: p for name, p in signature(DETECTORS.get(role)).parameters.items() if name not in RUNNING}
    return settable(own)


@dataclass(frozen=True, kw_only=True)
class DetectionSpec(Spec):
    """What ``detect`` is to look for; ``options`` are those of the detector that differ from its defaults."""

    command: ClassVar[str] = "detect"
    positional: ClassVar[tuple[str, ...]] = ("role",)

    role: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        check_options(self.options, detector_options(self.role), f"Detector {self.role!r}")

    def bind(self, model: Model) -> DetectionExperiment:
        return DetectionExperiment(self, model)

    def settings(self) -> dict[str, Any]:
        """The values of all options."""
        return {name: p.default for name, p in detector_options(self.role).items()} | dict(self.options)

    def to_python(self) -> str:
        return f"{self.python_model()}detection = interp.detect({_call(self)})\n"


@dataclass(frozen=True)
class DetectionExperiment(ResumableExperiment[DetectionSpec]):
    """The detection of a role in one model."""

    kind: ClassVar[str] = "detection"

    def inputs(self) -> dict[str, Any]:
        options = {name: value for name, value in self.spec.settings().items() if name != "memory"}
        return {"role": self.spec.role, "options": options}

    def name_parts(self) -> tuple[str, ...]:
        return self.spec.role, self.model_name

    def title(self) -> str:
        return f"{self.spec.role} in {self.model.facts.name}"

    def plan(self, memory: int | None = None) -> CostEstimate:
        """One unit per prompt (1 for detectors without prompts); the bytes of a forward pass over one text, seconds NaN."""
        from interp.ablation.ablate_heads import CostEstimate
        from interp.models.memory import forward_bytes

        facts = self.model.facts
        length = min(facts.max_length or PLANNED_LENGTH, PLANNED_LENGTH)
        n_prompts = self.spec.settings().get("n_prompts") or 1
        return CostEstimate(n_prompts, forward_bytes(facts, 1, length, patterns=False), float("nan"))

    def measure(self, **options: Any) -> Detection | TokenDetection:
        from interp.detectors import DETECTORS, detect

        role, settings, given = self.spec.role, self.spec.settings(), signature(DETECTORS.get(self.spec.role)).parameters
        settings |= {} if options["memory"] is None else {"memory": options["memory"]}
        with usage_errors():
            return detect(
                self.model, role, **settings, **{name: options[name] for name in RUNNING if name in options and name in given}
            )

    def publish(self, writer: RunWriter, result: Detection | TokenDetection) -> StoredRun:
        from interp.store import write_detection

        return write_detection(writer, result, self.model.facts)


def _call(spec: DetectionSpec) -> str:
    return ", ".join(filter(None, ["model", python_arguments(spec.role), python_arguments(**dict(spec.options))]))
