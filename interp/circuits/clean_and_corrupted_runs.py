"""The measurement behind every circuit function: the outcome of a task with parts of the residual stream corrupted.

``measuring`` checks model, task and metric, holds the model's lock while it is open, and refuses what cannot be interpreted:
numbers that are not finite, and a clean and a corrupted run with the same outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from interp.circuits.edge_replacement import check_edge_ablation, check_pairs, decompositions_with_ablation
from interp.circuits.split_work_and_estimate_cost import Parts
from interp.engine.sweep.clean_performance import right_and_preferred, with_performance
from interp.engine.sweep.outcome import Outcome, check_gradient, check_outcome
from interp.graph import Graph
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.records import RunRecord, digest
from interp.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.edges.residual_decomposition import ResidualDecomposition
    from interp.engine.sweep.readout import Readout
    from interp.engine.sweep.sweep import Progress, UnitLedger


class MeasuredBatch(NamedTuple):
    """Examples of one length: their decomposed residual streams, the function from last residuals to outcomes, and the outcomes
    of the clean and the fully corrupted run, [2 batch]."""

    example_ids: list[int]
    decomposition: ResidualDecomposition
    read: Callable[[Tensor], Tensor]
    ends: Tensor

    @property
    def clean(self) -> Float[Tensor, "1 batch"]:
        return self.ends[:1]

    def mask(self, positions: str | tuple[int, ...]) -> Bool[Tensor, "batch n"]:
        """True at the positions named, among those that are decomposed."""
        from interp.tasks.position_names import position_mask

        clean = self.decomposition.clean
        return position_mask(positions, clean.examples)[:, -clean.n_positions :].to(clean.residual[0].device)


@dataclass(frozen=True, eq=False)
class Measurement:
    """An open measurement; ``ends`` [2 n_examples] are the outcomes of the clean and the corrupted run after ``batches``."""

    model: Model
    task: Task
    outcome: Outcome
    graph: Graph
    ablation: str
    seed: int
    ends: Float[np.ndarray, "2 n_examples"]
    answered: Float[np.ndarray, "2 n_examples"]
    ledger: UnitLedger | None = None
    arrays: list[np.ndarray] = field(default_factory=list)

    @property
    def clean(self) -> Float[np.ndarray, " n_examples"]:
        return self.ends[0]

    @property
    def corrupted(self) -> Float[np.ndarray, " n_examples"]:
        return self.ends[1]

    def batches(self, progress: Progress | None = None) -> Iterator[MeasuredBatch]:
        """Every example once. Raises ValueError at the end when both runs have the same outcome or one that is not
        finite, and for an outcome outside its bounds."""
        streams = decompositions_with_ablation(self.model, self.task, self.outcome, self.ablation, self.seed, progress)
        for example_ids, decomposition, read in streams:
            checked = partial(self._read, read, example_ids)
            ends = checked(decomposition.ends)
            self.ends[:, example_ids] = to_numpy(ends)
            self.answered[:, example_ids] = right_and_preferred(decomposition.clean.examples, decomposition.clean.logits)
            yield MeasuredBatch(example_ids, decomposition, checked, ends)
        self.check_finite(self.ends)
        check_gap(self.clean, self.corrupted, self.outcome.name)

    def _read(self, read: Readout, example_ids: list[int], residual: Tensor) -> Tensor:
        outcomes = read(residual)
        self.outcome.check_bounds(outcomes, example_ids)
        return outcomes

    def zeros(self, *shape: int) -> np.ndarray:
        """An array for results, which must be finite when the measurement closes."""
        self.arrays.append(np.zeros(shape))
        return self.arrays[-1]

    def computed(
        self,
        work: Sequence[Parts],
        what: Any,
        compute: Callable[[MeasuredBatch, slice], Tensor],
        progress: Progress | None = None,
        batches: Sequence[MeasuredBatch] | None = None,
    ) -> Iterator[tuple[list[int], Iterator[np.ndarray]]]:
        """The examples of each batch with ``compute`` of each part of its work, one after another; ``progress`` is told of every part. What
        the ledger has is not computed again; ``what`` (a JSON value) tells this work from other work on the same task and model.
        ``batches`` are those of this measurement, where they were kept."""
        done, n_parts = count(1), sum(parts.count for parts in work)

        def found(batch: MeasuredBatch, parts: Parts) -> Iterator[np.ndarray]:
            for part in self._parts(batch, what, parts, compute):
                if progress:
                    progress(next(done), n_parts)
                yield part

        for batch, parts in zip(self.batches() if batches is None else batches, work, strict=True):
            yield batch.example_ids, found(batch, parts)

    def _parts(
        self, batch: MeasuredBatch, what: Any, parts: Parts, compute: Callable[[MeasuredBatch, slice], Tensor]
    ) -> Iterator[np.ndarray]:
        facts = self.model.facts
        own = [facts.weights_digest, facts.dtype, self.task.digest(), self.outcome.name, self.ablation, self.seed]
        for start in range(0, parts.n, parts.at_once):
            key = digest([*own, what, batch.example_ids, start, parts.at_once])
            found = self.ledger.get(key) if self.ledger is not None else None
            if found is None:
                found = to_numpy(compute(batch, slice(start, start + parts.at_once)))
                if self.ledger is not None:
                    self.ledger.put(key, found)
            yield found

    def check_finite(self, *values: np.ndarray) -> None:
        """Raises ValueError when the model computes NaN or infinite outcomes."""
        facts = self.model.facts
        for array in values:
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{self.outcome.name} is {array[~np.isfinite(array)][0]}: {facts.name} computes NaN or inf in {facts.dtype}. Load it "
                    f"in float32, or check its weights with `interp doctor`."
                )

    def record(self, intervention: str, **arguments: Any) -> RunRecord:
        """The record of this measurement after ``batches``, with ``arguments`` and the ablation beside those of the task."""
        arguments = {"ablation": self.ablation, **arguments}
        record = measurement_record(self.model, self.task, intervention, self.outcome.name, self.seed, **arguments)
        return with_performance(record, self.task, self.answered, self.outcome.name, float(self.clean.mean()))


@contextmanager
def measuring(
    model: Model,
    task: Task,
    metric: str | None = None,
    *,
    ablation: str | None = None,
    seed: int = 0,
    gradient: bool = False,
    fused: bool = False,
    ledger: UnitLedger | None = None,
) -> Iterator[Measurement]:
    """Opens a measurement of ``metric`` (by default the task's) with what is corrupted replaced as ``ablation`` says (``None``:
    by the corrupted prompts); ``gradient`` where the outcome is differentiated, ``fused`` for the engine's fused modules; what
    ``Measurement.computed`` computes is kept in ``ledger``.

    Raises LookupError for an unknown metric or ablation; ValueError for a model without a residual graph, a task without what
    metric or ablation needs, a metric without the gradient that is needed, and for what ``Measurement`` refuses.
    """
    import torch

    from interp.engine.edges.edge_patching import graph_of
    from interp.engine.sweep.fused_ops import engine_modules

    outcome, graph = OUTCOMES.get(metric or task.metric), graph_of(model)
    check_outcome(task, outcome)
    if gradient:
        check_gradient(outcome)
    check_pairs(task) if ablation is None else check_edge_ablation(task, ablation)
    ends, answered = (np.full((2, len(task)), np.nan) for _ in range(2))
    measurement = Measurement(model, task, outcome, graph, ablation or "counterfactual", seed, ends, answered, ledger)
    without_gradient = torch.no_grad() if gradient else torch.inference_mode()  # estimates enable it where they need it
    with model.lock, without_gradient, engine_modules(model.hf, fused=fused):
        yield measurement
    measurement.check_finite(*measurement.arrays)


def measurement_record(
    model: Model, task: Task, intervention: str, metric: str | None = None, seed: int = 0, **arguments: Any
) -> RunRecord:
    """The record of a run of ``task`` with one kind of intervention; ``arguments`` are added to those of the task."""
    arguments, labels = {**task.provenance, **arguments}, (intervention,) if intervention else ()
    return record_of(model, task=task.name, arguments=arguments, interventions=labels, metric=metric or task.metric, seed=seed)


def check_gap(clean: Float[np.ndarray, " n"], corrupted: Float[np.ndarray, " n"], metric: str) -> None:
    """Raises ValueError when both runs have the same mean outcome."""
    gap, size = abs(clean.mean() - corrupted.mean()), max(np.abs(clean).max(), np.abs(corrupted).max())
    if not gap > 1e-6 * size:
        raise ValueError(
            f"The clean and the corrupted run have the same {metric} ({clean.mean():.4g}): there is no effect to attribute to edges. "
            f"Use another metric, other corrupted prompts or another ablation."
        )


def to_numpy(outcomes: Tensor) -> np.ndarray:
    """Outcomes in double precision on the CPU."""
    return outcomes.cpu().double().numpy()
