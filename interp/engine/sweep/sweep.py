"""The exact outcome of every variant on every example, as one hooked forward pass per variant would give it.

Variants are resumed from the clean pass (``resume_from_layer.py``) once it is verified for the loaded model that attention output is the
projection of the heads' z, that every module is called once per layer, that runs resumed without a change give the plain model's logits
(``verify_resumption.py``) and that a linear outcome is read as from its logits. Otherwise the sweep warns and uses the hooked backend,
as it does for variants that change a head twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from interp._short_repr import short_repr
from interp.engine.forward.run import plain_logits, quiet_inference
from interp.engine.sweep.clean_performance import performance, right_and_preferred, with_performance
from interp.engine.sweep.fused_ops import engine_modules
from interp.engine.sweep.outcome import Answers, Outcome, check_outcome
from interp.engine.sweep.unit_runner import N_CLEAN_ROWS, UnitRunner
from interp.engine.sweep.variant import Variant, describe, heads_of
from interp.engine.sweep.work_units import batches, plan_sweep
from interp.heads import Head
from interp.models.model import Model
from interp.records import Performance, RunRecord
from interp.tasks.task import Task

Progress = Callable[[int, int], None]

UNIT_FORMAT = 2  # 2: two more rows say whether the clean run is right and prefers the answer


@runtime_checkable
class UnitLedger(Protocol):
    """Storage of finished units, from which an interrupted sweep is resumed."""

    def get(self, key: str) -> np.ndarray | None: ...

    def put(self, key: str, values: np.ndarray) -> None: ...


@short_repr
@dataclass(frozen=True, eq=False)
class SweepResult:
    """The outcomes of a sweep.

    ``variants[i]`` are the heads that variant ``i`` changes; ``baseline`` [n_examples] is the outcome of the clean run,
    ``values`` [n_variants n_examples] of the changed runs (float64). ``effects = values - baseline``: negative = the head
    helped, where larger outcomes are better. ``backend`` is ``resumed``, ``hooked`` or ``gradient``.
    """

    variants: tuple[tuple[Head, ...], ...]
    ablation: str
    positions: str
    metric: str
    unit: str
    baseline: np.ndarray
    values: np.ndarray
    record: RunRecord
    backend: str = "resumed"

    @classmethod
    def of(
        cls,
        variants: Sequence[Variant],
        outcome: Outcome,
        baseline: np.ndarray,
        values: np.ndarray,
        record: RunRecord,
        backend: str,
    ) -> "SweepResult":
        """The outcomes of variants that differ only in their heads."""
        heads, first = tuple(map(heads_of, variants)), variants[0][0]
        return cls(heads, first.label, str(first.positions), outcome.name, outcome.unit, baseline, values, record, backend)

    @property
    def effects(self) -> np.ndarray:
        return self.values - self.baseline


def rank_variants(result: SweepResult) -> list[tuple[Head, ...]]:
    """Variants by the size of their mean effect, largest first; ties in order."""
    size = np.abs(result.effects.mean(1))
    return [result.variants[i] for i in np.argsort(-size, kind="stable")]


def sweep(
    model: Model,
    task: Task,
    variants: Sequence[Variant],
    outcome: Outcome,
    *,
    record: RunRecord,
    memory: int | None = None,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
    backend: str | None = None,
) -> SweepResult:
    """The outcome of every variant on every example of the task.

    ``backend`` forces ``resumed`` or ``hooked``; the default is ``resumed`` where it is verified for the model. Raises
    MemoryBudgetExceeded when a single prompt exceeds ``memory``, ValueError when an outcome is not finite. The record of the result says on
    how many prompts the clean run is right.
    """
    check_outcome(task, outcome)
    identity = (
        f"{record.weights_digest} {outcome.name} {task.digest()} {[describe(v) for v in variants]} {record.seed} {UNIT_FORMAT}"
    )
    plan = plan_sweep(model, task, variants, outcome, memory, identity=identity)
    values = np.full((len(variants) + N_CLEAN_ROWS, len(task)), np.nan)
    with model.lock, quiet_inference(), engine_modules(model.hf):
        runner = UnitRunner(model, task, variants, outcome, plan, backend)
        for done, unit in enumerate(plan.units):
            found = ledger.get(unit.key) if ledger is not None else None
            if found is None:
                found = runner.measure(unit)
                if ledger is not None:
                    ledger.put(unit.key, found)
            values[np.ix_([*unit.variants, *range(-N_CLEAN_ROWS, 0)], unit.example_ids)] = found
            if progress:
                progress(done + 1, plan.n_units)
    changed, (baseline, *answered) = np.split(values, [len(variants)])
    record = with_performance(record, task, np.stack(answered), outcome.name, float(baseline.mean()))
    return SweepResult.of(variants, outcome, baseline, changed, record, runner.backend or "resumed")


def clean_outcome(model: Model, task: Task, outcome: Outcome) -> np.ndarray:
    """The outcome of the unchanged model on every example, in float64. Raises ValueError for an encoder and outside the bounds of
    the outcome."""
    return outcome_and_performance(model, task, outcome)[0]


def outcome_and_performance(model: Model, task: Task, outcome: Outcome) -> tuple[np.ndarray, Performance]:
    """The outcome of the unchanged model on every example, in float64, and how well it does the task. Raises as ``clean_outcome``."""
    model.facts.check_causal("The outcome of a task")
    check_outcome(task, outcome)
    values, answered = np.empty(len(task)), np.empty((2, len(task)))
    with model.lock, quiet_inference():
        for example_ids in batches(task):
            examples = [task.examples[r] for r in example_ids]
            logits = plain_logits(model, examples)
            values[example_ids] = outcome.of_logits(logits, Answers.of(examples, model.device), logits).cpu().double().numpy()
            answered[:, example_ids] = right_and_preferred(examples, logits)
    outcome.check_bounds(values, range(len(task)))
    return values, performance(task, answered, outcome.name, float(values.mean()))
