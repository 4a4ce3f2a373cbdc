"""Fidelity of every head under an attention variant, on a text or on the prompts of a task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from interp.errors import counted
from interp.experiments.attention import AttentionExperiment, AttentionSpec
from interp.experiments.experiment import Progress
from interp.experiments.run_folder import Notify

if TYPE_CHECKING:
    from interp.engine.attention.attention_metric import AttentionMetric
    from interp.engine.attention.attention_observer import Observation
    from interp.interventions import Intervention
    from interp.models.model import Model


@dataclass(frozen=True, kw_only=True)
class FidelitySpec(AttentionSpec):
    """What ``fidelity`` is to compare: the rows of every head on one of ``text``, ``file``, ``task`` and ``prompts``, unchanged and under
    ``variant``, an attention variant with options, such as ``window:size=64``."""

    command: ClassVar[str] = "fidelity"
    explicit: ClassVar[tuple[str, ...]] = ("model", "variant")

    variant: str = "window"

    def check(self) -> None:
        from interp.ablation.ablations import build_variant
        from interp.ablation.fidelity import check_changes_patterns
        from interp.heads import Head

        super().check()
        check_changes_patterns(build_variant(self.variant, [Head(0, 0)]))

    def attention_metrics(self) -> list[AttentionMetric]:
        from interp.ablation.fidelity import FIDELITY_METRICS

        return FIDELITY_METRICS

    def bind(self, model: Model) -> FidelityExperiment:
        found = super().bind(model)
        return FidelityExperiment(self, model, found.prompts, found.name, found.arguments, found.tokens)

    def to_python(self) -> str:
        start, _ = super().to_python().rsplit("observation = ", 1)
        build = f"variant = interp.build_variant({self.variant!r}, model.facts.heads())\n"
        return f"{start}{build}observation = interp.fidelity(model, prompts, [variant])\n"


@dataclass(frozen=True)
class FidelityExperiment(AttentionExperiment):
    """The fidelity of one model's heads on ``prompts``."""

    kind: ClassVar[str] = "fidelity"
    spec: FidelitySpec

    def inputs(self) -> dict[str, Any]:
        return {**super().inputs(), "variant": self.spec.variant}

    def name_parts(self) -> tuple[str, ...]:
        return "fidelity", self.spec.variant.replace(":", "-").replace(",", "-"), *super().name_parts()[1:]

    def title(self) -> str:
        n_tokens, heads = self.arguments["n_tokens"], len(self.model.facts.heads())
        return f"fidelity of {counted(heads, 'head')} under {self.spec.variant} on {counted(n_tokens, 'token')}"

    def measure(self, progress: Progress | None, memory: int | None, notify: Notify) -> Observation:
        from interp.ablation.fidelity import fidelity

        observation = fidelity(self.model, self.prompts, [self.variant()], memory=memory)
        self._notify_unknown_words(notify)
        record = replace(observation.record, task=self.name, arguments=self.arguments, interventions=(self.spec.variant,))
        return replace(observation, record=replace(record, seed=self.spec.seed))

    def variant(self) -> Intervention:
        """The variant on all heads."""
        from interp.ablation.ablations import build_variant

        return build_variant(self.spec.variant, self.model.facts.heads())
