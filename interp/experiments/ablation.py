"""Ablation of every head: the effect of each on the metric of a task.

``effect = metric(ablated) - metric(clean)``; negative = the head helped (for ``answer_loss`` and ``kl``, positive).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from interp.experiments.experiment import ResumableExperiment, Spec, python_arguments, python_task
from interp.experiments.prompts import check_prompts, load_task, performance_sentences
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.ablation import AblationResult
    from interp.ablation.ablate_heads import CostEstimate
    from interp.heads import Head
    from interp.models.model import Model, ModelFacts
    from interp.store import RunWriter, StoredRun
    from interp.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class AblationSpec(Spec):
    """What ``ablate_heads`` is to compute, on the prompts of a task or of a JSON Lines file (``prompts``),
    with ``chat`` in the model's chat template. ``task_options`` belong to the task.

    ``heads`` (such as ``L5H1``) or ``layers`` restrict it; ``pairs`` adds every pair of the chosen heads; ``top_share`` is for the
    estimator ``adaptive``.
    """

    command: ClassVar[str] = "ablate"

    task: str | None = None
    prompts: str | None = None
    chat: bool = False
    n_prompts: int = 64
    seed: int = 0
    ablation: str = "mean"
    estimator: str = "exact"
    positions: str = "all"
    metric: str | None = None
    heads: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    pairs: bool = False
    top_share: float = 0.2
    task_options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        from interp.ablation.ablate_heads import ESTIMATORS
        from interp.ablation.ablations import check_ablation
        from interp.metrics.outcomes import OUTCOMES

        check_prompts(self.task, self.prompts, self.chat)
        if self.metric is not None:
            check_name(self.metric, OUTCOMES.names(), "metric")
        check_ablation(self.ablation)
        check_name(self.estimator, ESTIMATORS, "estimator")
        if self.heads and self.layers:
            raise ValueError("--heads and --layers both choose heads: give one of them.")

    def bind(self, model: Model) -> AblationExperiment:
        task = self.load_task(model)
        return AblationExperiment(self, model, task, self._chosen_heads(model.facts))

    def load_task(self, model: Model) -> Task:
        """The prompts in the model's tokens, at least two."""
        return load_task(model, self.task, self.prompts, self.n_prompts, self.seed, self.task_options, chat=self.chat)

    def to_python(self) -> str:
        used = {"ablation": self.ablation, "estimator": self.estimator, "positions": self.positions, "metric": self.metric}
        used |= {"pairs": self.pairs, "seed": self.seed} | (
            {"top_share": self.top_share} if self.estimator == "adaptive" else {}
        )
        default = AblationSpec()
        changed = {name: value for name, value in used.items() if name == "ablation" or value != getattr(default, name)}
        heads = ""
        if self.heads:
            heads = f", heads=[interp.Head.parse(label) for label in {list(self.heads)!r}]"
        elif self.layers:
            heads = f", heads=[head for head in model.facts.heads() if head.layer in {self.layers!r}]"
        return (
            f"{self.python_model()}task = "
            f"{python_task(self.task, self.prompts, self.n_prompts, self.seed, dict(self.task_options), chat=self.chat)}\n"
            f"result = interp.ablate_heads(model, task, {python_arguments(**changed)}{heads})\n"
            "table = result.heads()\n"
        )

    def _chosen_heads(self, facts: ModelFacts) -> list[Head] | None:
        """The heads to ablate, None for all. Raises LookupError for those that do not exist."""
        from interp.heads import Head

        if self.heads:
            return list(dict.fromkeys(facts.check_head(Head.parse(label)) for label in self.heads))
        if not self.layers:
            return None
        if (last := max(self.layers)) >= facts.n_layers:
            raise LookupError(f"Layer {last} does not exist: {facts.name} has layers 0-{facts.n_layers - 1}.")
        return [head for head in facts.heads() if head.layer in self.layers]


@dataclass(frozen=True)
class AblationExperiment(ResumableExperiment[AblationSpec]):
    """An ablation of the heads of one model on one task."""

    kind: ClassVar[str] = "ablation"
    task: Task
    heads: list[Head] | None

    def inputs(self) -> dict[str, Any]:
        task, options = self.task, self._options()
        heads = [str(head) for head in self.heads] if self.heads else "all"
        return {"task": task.name, "arguments": task.arguments, "examples": task.digest(), **options, "heads": heads}

    def name_parts(self) -> tuple[str, ...]:
        estimator = () if self.spec.estimator == "exact" else (self.spec.estimator,)
        return (self.task.name, self.model_name, re.sub(r"[:,=]", "-", self.spec.ablation), *estimator)

    def title(self) -> str:
        return f"{self.spec.ablation} ablation on {self.task.size_text} of {self.task.name} in {self.model.facts.name}"

    def plan(self, memory: int | None = None) -> CostEstimate:
        from interp.ablation.ablate_heads import estimate_cost

        return estimate_cost(self.model, self.task, **self._options(), memory=memory)

    def n_stored_units(self) -> int | None:
        """As ``Experiment.n_stored_units``; it depends on the number of heads alone, and is None for ``attribution``."""
        return None if self.spec.estimator == "attribution" else self.plan().n_units

    def performance_sentences(self) -> list[str]:
        return performance_sentences(self.model, [self.task], self.spec.metric or self.task.metric)

    def measure(self, **options: Any) -> AblationResult:
        from interp.ablation.ablate_heads import ablate_heads

        return ablate_heads(self.model, self.task, **self._options(), **options)

    def publish(self, writer: RunWriter, result: AblationResult) -> StoredRun:
        from interp.store import write_ablation

        return write_ablation(writer, result)

    def _options(self) -> dict[str, Any]:
        """The arguments of ``ablate_heads``."""
        names = ("ablation", "estimator", "positions", "pairs", "seed", "top_share")
        chosen = {name: getattr(self.spec, name) for name in names}
        return {**chosen, "metric": self.spec.metric or self.task.metric, "heads": self.heads}
