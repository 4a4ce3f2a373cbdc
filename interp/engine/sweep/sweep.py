"""Many runs: one number for each variant and example, exactly as one hooked forward pass each would give.

Variants restart from the clean run (``restart.py``) when three things have been checked, once for each loaded model: attention output
is the projection of the heads' z, every module is called once a layer, and a run restarted without any change gives the model's
own logits. Otherwise, and for variants that cannot be restarted, the sweep takes the hooked road and says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from weakref import WeakSet

import numpy as np
import torch

from interp.engine.attention.attention_interface import reading
from interp.engine.forward.run import answer_logits, plain_logits
from interp.engine.sweep.clean_pass import CleanRun, RoadClosed, clean_run
from interp.engine.sweep.fused_ops import fused_modules
from interp.engine.sweep.outcome import Answers, Outcome
from interp.engine.sweep.readout import Readout
from interp.engine.sweep.resume_from_layer import Variant, restart, restartable
from interp.engine.sweep.work_units import Unit, batches, heads_of, plan_sweep
from interp.heads import Head
from interp.interventions import scale
from interp.models.model import Model
from interp.records import RunRecord
from interp.tasks.task import Example, Task

Progress = Callable[[int, int], None]


@runtime_checkable
class Ledger(Protocol):
    """Where finished units are kept, so that a killed sweep can go on."""

    def get(self, key: str) -> np.ndarray | None: ...

    def put(self, key: str, values: np.ndarray) -> None: ...


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep measured.

    ``variants[i]`` are the heads changed together; ``baseline`` [n_examples] is the outcome of the clean run, ``values``
    [n_variants n_examples] of the changed ones (float64). ``effects = values - baseline``: negative = the head helped, where
    larger outcomes are better. ``road`` is ``restart``, ``hooked`` or ``gradient``; ``estimate`` is the gradient estimate of all
    heads where it chose the ones that were measured.
    """

    variants: tuple[tuple[Head, ...], ...]
    method: str
    positions: str
    metric: str
    unit: str
    baseline: np.ndarray
    values: np.ndarray
    record: RunRecord
    road: str = "restart"
    estimate: SweepResult | None = None

    @property
    def effects(self) -> np.ndarray:
        return self.values - self.baseline


def sweep(
    model: Model,
    task: Task,
    variants: Sequence[Variant],
    outcome: Outcome,
    *,
    record: RunRecord,
    memory: int | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    road: str | None = None,
) -> SweepResult:
    """The outcome of every variant on every example of the task.

    ``road`` forces ``restart`` or ``hooked``; by default the faster one that is proven is taken. Raises ResourceRefused when not even
    one prompt fits ``memory``, ValueError when a result is not finite.
    """
    check_outcome(task, outcome)
    identity = f"{record.weights} {outcome.name} {task.digest()} {[describe(v) for v in variants]} {record.seed}"
    plan = plan_sweep(model, task, variants, outcome, memory, identity=identity)
    values = np.full((len(variants) + 1, len(task)), np.nan)
    worker = _Worker(model, task, variants, outcome, road)
    with model.lock, quiet_inference(), own_modules(model):
        for done, unit in enumerate(plan.units):
            found = ledger.get(unit.key) if ledger is not None else None
            if found is None:
                found = worker.measure(unit)
                if not np.isfinite(found).all():
                    raise ValueError(_not_finite(model, found, unit, variants, outcome))
                if ledger is not None:
                    ledger.put(unit.key, found)
            values[np.ix_([*unit.variants, -1], unit.rows)] = found
            if progress:
                progress(done + 1, plan.n_units)
    first = variants[0][0]
    return SweepResult(
        tuple(heads_of(v) for v in variants),
        first.label,
        str(first.positions),
        outcome.name,
        outcome.unit,
        values[-1],
        values[:-1],
        record,
        worker.road or "restart",
    )


def clean_outcome(model: Model, task: Task, outcome: Outcome) -> np.ndarray:
    """The outcome of the unchanged model on every example, [n_examples] float64. Raises ValueError for an encoder."""
    model.facts.check_causal("The outcome of a task")
    check_outcome(task, outcome)
    values = np.empty(len(task))
    with model.lock, quiet_inference():
        for rows in batches(task):
            examples = [task.examples[r] for r in rows]
            logits = plain_logits(model, examples)
            values[rows] = outcome.function(logits, Answers.of(examples, model.device), logits).cpu().double().numpy()
    return values


def describe(variant: Variant) -> str:
    """A variant in words: its interventions."""
    return "; ".join(map(str, variant))


def check_outcome(task: Task, outcome: Outcome) -> None:
    """Raises ValueError when the outcome needs distractors that some example does not have."""
    bare = [i for i, example in enumerate(task) if not example.distractors]
    if outcome.needs_distractors and bare:
        raise ValueError(
            f"Metric {outcome.name!r} compares answers with distractors, and example {bare[0]} of task {task.name!r} has none: "
            f"add distractors or use answer_logprob."
        )


_PROVEN: WeakSet[Model] = WeakSet()


@contextmanager
def own_modules(model: Model) -> Iterator[None]:
    """The engine's attention and fused modules in the plain model, for the length of many runs."""
    with fused_modules(model.hf), nullcontext() if model.hf is None else reading(model.hf, {}):
        yield


class _Worker:
    """Measures units, keeping the clean runs of the prompts it worked on last."""

    def __init__(self, model: Model, task: Task, variants: Sequence[Variant], outcome: Outcome, road: str | None) -> None:
        self.model, self.task, self.variants, self.outcome = model, task, variants, outcome
        self.road = road if all(map(restartable, variants)) or road == "restart" else "hooked"
        self.shared: CleanRun | None = None
        self.clean: CleanRun | None = None
        self.readout: Readout | None = None

    def measure(self, unit: Unit) -> np.ndarray:
        """Outcomes of the unit's variants, and in the last row of the clean run; [n_variants + 1, n_rows]."""
        if self.road != "hooked":
            try:
                return self._restarted(unit)
            except RoadClosed as reason:
                if self.road == "restart":
                    raise
                warnings.warn(f"{reason}; taking the slower hooked road.", stacklevel=3)
                self.road = "hooked"
        return self._hooked(unit)

    def _restarted(self, unit: Unit) -> np.ndarray:
        if self.model not in _PROVEN:
            prove(self.model, self.task.examples[unit.rows[0]], self.outcome)
            _PROVEN.add(self.model)
        if self.shared is None or self.shared.rows.tolist() != list(unit.clean.rows):
            self.shared = self.clean = self.readout = None
            examples = [self.task.examples[r] for r in unit.clean.rows]
            changes = list(dict.fromkeys(i for v in self.variants for i in v))
            self.shared = clean_run(self.model, examples, unit.clean.rows, unit.clean.start, changes, before=unit.clean.before)
        if self.clean is None or self.clean.rows.tolist() != list(unit.rows):
            self.clean = self.shared.part(list(unit.rows), unit.n)
            self.readout = Readout(self.model, self.clean.examples, self.outcome, self.clean.logits)
        assert self.readout is not None
        residual = restart(self.model, self.clean, [self.variants[v] for v in unit.variants])
        values = torch.cat([self.readout(residual), self.readout(self.clean.last[None])])
        return values.cpu().double().numpy()

    def _hooked(self, unit: Unit) -> np.ndarray:
        values = np.empty((len(unit.variants) + 1, len(unit.rows)))
        for length in {len(self.task.examples[r].clean) for r in unit.rows}:
            here = [i for i, r in enumerate(unit.rows) if len(self.task.examples[r].clean) == length]
            examples = [self.task.examples[unit.rows[i]] for i in here]
            rows = torch.tensor([unit.rows[i] for i in here], device=self.model.device)
            answers = Answers.of(examples, self.model.device)
            clean = answer_logits(self.model, examples, rows, ())
            measured = [answer_logits(self.model, examples, rows, self.variants[v]) for v in unit.variants]
            found = torch.stack([self.outcome.function(x, answers, clean) for x in [*measured, clean]])
            values[:, here] = found.cpu().double().numpy()
        return values


def prove(model: Model, example: Example, outcome: Outcome) -> None:
    """Raises RoadClosed unless, on this prompt, attention output is the projection of z, and a run that is restarted from the first
    block without a change gives the model's own answer logits."""
    clean = clean_run(model, [example], [0])
    assert model.layout is not None
    eps = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)  # models compute norms and softmax in float32
    for z, out, projection in zip(clean.z, clean.attn_out, model.layout.outputs, strict=True):
        if float((projection(z.flatten(-2).contiguous()) - out).abs().max()) > 512 * eps * float(out.abs().max()):
            raise RoadClosed(f"{model.facts.architecture}: the output of attention is not the projection of the heads' z")
    unchanged: Variant = (scale([Head(0, 0)], 1.0),)
    again = Readout(model, [example], outcome, clean.logits).logits(restart(model, clean, [unchanged])[0])
    worst = float((again - clean.logits.float()).abs().max())
    if not worst <= 512 * eps * float(clean.logits.float().abs().max()):
        raise RoadClosed(f"{model.facts.architecture}: a restarted run differs from the model by {worst:.2g} in its logits")


@contextmanager
def quiet_inference() -> Iterator[None]:
    """No gradients, and TransformerLens's warning of a discarded edit turned into an error: it would be a silent wrong number."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*discarded.*")
        yield


def _not_finite(model: Model, found: np.ndarray, unit: Unit, variants: Sequence[Variant], outcome: Outcome) -> str:
    row, column = np.argwhere(~np.isfinite(found))[0]
    what = "the clean run" if row == len(unit.variants) else describe(variants[unit.variants[row]])
    return (
        f"{outcome.name} of {what} on example {unit.rows[column]} is {found[row, column]}: {model.facts.name} computes NaN or inf in "
        f"{model.facts.dtype}. Load it in float32 or check its weights with `interp doctor`."
    )
