"""Effect of sink calibration, which reduces the attention weight of a head's later sinks, on a task (arXiv 2406.15765).

``effect = metric(calibrated) - metric(clean)``; positive = the calibration helped. The method selects heads with a positive
effect on one set of prompts and calibrates them together on another; compare with equally many random heads and with random
columns of equal weight. Sinks are those of the clean run, also when several layers are calibrated together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import interventions
from interp._short_repr import short_repr
from interp.engine.attention.attention_observer import observe
from interp.engine.sweep.sweep import Progress, SweepResult, sweep
from interp.heads import Head
from interp.metrics.attention.column_sinks import column_sinks
from interp.metrics.attention.received_attention import received_attention
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.tasks.task import Task


@short_repr
@dataclass(frozen=True, eq=False)
class SinkColumns:
    """Sinks of every head: ``is_sink``, and the mean ``weight`` of each column, NaN where it is not judged."""

    is_sink: Bool[Tensor, "n_layers batch n_heads pos"]
    weight: Float[Tensor, "n_layers batch n_heads pos"]

    @property
    def heads(self) -> list[Head]:
        """Heads with a sink in at least one example."""
        return [Head(*at) for at in self.is_sink.any(-1).any(1).nonzero().tolist()]

    def random(self, seed: int = 0) -> SinkColumns:
        """Random other columns for every head and example, with as much weight as its sinks where available: the control."""
        generator = torch.Generator().manual_seed(seed)
        is_sink = torch.zeros_like(self.is_sink)
        for at in self.is_sink.any(-1).nonzero().tolist():
            own, weight = self.is_sink[tuple(at)], self.weight[tuple(at)].cpu()
            others = (~own & self.weight[tuple(at)].isfinite()).nonzero()[:, 0]
            order = others[torch.randperm(len(others), generator=generator)]
            before = weight[order].cumsum(0) - weight[order]
            is_sink[(*at, order[before < float(weight[own].sum())])] = True
        return SinkColumns(is_sink, self.weight)


def sink_columns(
    model: Model,
    task: Task,
    *,
    rule: str = "ratio",
    alpha: float = 5.0,
    threshold: float = 0.1,
    min_rows: int = 8,
    keep_first: bool = True,
    memory: int | None = None,
) -> SinkColumns:
    """The sinks of every head in the clean prompts of a task; parameters as in ``column_sinks``."""
    limits = {"rule": rule, "alpha": alpha, "threshold": threshold, "min_rows": min_rows, "keep_first": keep_first}
    observation = observe(model, task, [column_sinks.set(**limits), received_attention.set(min_rows=min_rows)], memory=memory)
    is_sink, weight = observation["column_sinks"], observation["received_attention"]
    return SinkColumns(is_sink == 1, weight.masked_fill(is_sink.isnan(), torch.nan))


def calibrate_heads(
    model: Model,
    task: Task,
    sinks: SinkColumns,
    *,
    beta: float = 0.4,
    groups: Sequence[tuple[Head, ...]] | None = None,
    metric: str = "accuracy",
    memory: int | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """The outcome with the ``sinks`` of each group of heads scaled to ``beta``; by default each head with sinks alone. Raises
    ValueError if no head has a sink."""
    groups = [(head,) for head in sinks.heads] if groups is None else groups
    if not groups:
        found = f"No head of {model.facts.name} has a sink in the prompts of task {task.name!r}"
        raise ValueError(f"{found}: lower alpha or threshold of sink_columns.")
    outcome = OUTCOMES.get(metric)
    variants = [(interventions.calibrate_sinks(group, sinks.is_sink, beta),) for group in groups]
    arguments = {**task.provenance, "beta": beta}
    record = record_of(model, task=task.name, arguments=arguments, interventions=("calibrate",), metric=outcome.name)
    return sweep(model, task, variants, outcome, record=record, memory=memory, progress=progress)


def improving_heads(result: SweepResult) -> list[Head]:
    """Heads calibrated alone with a mean effect above 0, largest first."""
    pairs = zip(result.effects.mean(1), result.variants, strict=True)
    effects = [(effect, group[0]) for effect, group in pairs if len(group) == 1 and effect > 0]
    return [head for _, head in sorted(effects, key=lambda pair: -pair[0])]
