"""Many runs: one number for each variant and example, exactly as one hooked forward pass each would give.

Variants restart from the clean run (``resumed.py``) when three things have been checked, once for each loaded model: attention output
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

from interp._short_repr import short_repr
from interp.engine.attention.attention_interface import attention_hooks
from interp.engine.forward.run import answer_logits, plain_logits, quiet_inference
from interp.engine.sweep.clean_pass import CleanPass, FastPathUnavailable, clean_pass
from interp.engine.sweep.fused_ops import fused_modules
from interp.engine.sweep.outcome import Answers, Outcome
from interp.engine.sweep.readout import Readout
from interp.engine.sweep.resume_from_layer import Variant, resumable, resume_variants
from interp.engine.sweep.work_units import WorkUnit, batches, heads_of, plan_sweep
from interp.heads import Head
from interp.interventions import scale
from interp.models.model import Model
from interp.records import RunRecord
from interp.tasks.task import Example, Task

Progress = Callable[[int, int], None]


@runtime_checkable
class UnitLedger(Protocol):
    """Where finished units are kept, so that a killed sweep can go on."""

    def get(self, key: str) -> np.ndarray | None: ...

    def put(self, key: str, values: np.ndarray) -> None: ...


@short_repr
@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep measured.

    ``variants[i]`` are the heads changed together; ``baseline`` [n_examples] is the outcome of the clean run, ``values``
    [n_variants n_examples] of the changed ones (float64). ``effects = values - baseline``: negative = the head helped, where
    larger outcomes are better. ``ablation`` is the label of the intervention; ``backend`` is ``resumed``, ``hooked`` or ``gradient``.
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
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
    backend: str | None = None,
) -> SweepResult:
    """The outcome of every variant on every example of the task.

    ``backend`` forces ``resumed`` or ``hooked``; by default the faster one that is proven is taken. Raises MemoryBudgetExceeded when not even
    one prompt fits ``memory``, ValueError when a result is not finite.
    """
    check_outcome(task, outcome)
    identity = f"{record.weights_digest} {outcome.name} {task.digest()} {[describe(v) for v in variants]} {record.seed}"
    plan = plan_sweep(model, task, variants, outcome, memory, identity=identity)
    values = np.full((len(variants) + 1, len(task)), np.nan)
    worker = _Worker(model, task, variants, outcome, backend)
    with model.lock, quiet_inference(), own_modules(model):
        for done, unit in enumerate(plan.units):
            found = ledger.get(unit.key) if ledger is not None else None
            if found is None:
                found = worker.measure(unit)
                if not np.isfinite(found).all():
                    raise ValueError(_not_finite(model, found, unit, variants, outcome))
                if ledger is not None:
                    ledger.put(unit.key, found)
            values[np.ix_([*unit.variants, -1], unit.example_ids)] = found
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
        worker.backend or "resumed",
    )


def clean_outcome(model: Model, task: Task, outcome: Outcome) -> np.ndarray:
    """The outcome of the unchanged model on every example, [n_examples] float64. Raises ValueError for an encoder."""
    model.facts.check_causal("The outcome of a task")
    check_outcome(task, outcome)
    values = np.empty(len(task))
    with model.lock, quiet_inference():
        for example_ids in batches(task):
            examples = [task.examples[r] for r in example_ids]
            logits = plain_logits(model, examples)
            values[example_ids] = outcome.function(logits, Answers.of(examples, model.device), logits).cpu().double().numpy()
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
    with fused_modules(model.hf), nullcontext() if model.hf is None else attention_hooks(model.hf, {}):
        yield


class _Worker:
    """Measures units, keeping the clean runs of the prompts it worked on last."""

    def __init__(self, model: Model, task: Task, variants: Sequence[Variant], outcome: Outcome, backend: str | None) -> None:
        self.model, self.task, self.variants, self.outcome = model, task, variants, outcome
        self.backend = backend if all(map(resumable, variants)) or backend == "resumed" else "hooked"
        self.shared: CleanPass | None = None
        self.clean: CleanPass | None = None
        self.readout: Readout | None = None

    def measure(self, unit: WorkUnit) -> np.ndarray:
        """Outcomes of the unit's variants, and in the last row of the clean run; [n_variants + 1, n_rows]."""
        if self.backend != "hooked":
            try:
                return self._restarted(unit)
            except FastPathUnavailable as reason:
                if self.backend == "resumed":
                    raise
                warnings.warn(f"{reason}; taking the slower hooked road.", stacklevel=3)
                self.backend = "hooked"
        return self._hooked(unit)

    def _restarted(self, unit: WorkUnit) -> np.ndarray:
        if self.model not in _PROVEN:
            prove(self.model, self.task.examples[unit.example_ids[0]], self.outcome)
            _PROVEN.add(self.model)
        if self.shared is None or self.shared.example_ids.tolist() != list(unit.clean.example_ids):
            self.shared = self.clean = self.readout = None
            examples = [self.task.examples[r] for r in unit.clean.example_ids]
            changes = list(dict.fromkeys(i for v in self.variants for i in v))
            self.shared = clean_pass(
                self.model, examples, unit.clean.example_ids, unit.clean.start, changes, before=unit.clean.before
            )
        if self.clean is None or self.clean.example_ids.tolist() != list(unit.example_ids):
            self.clean = self.shared.part(list(unit.example_ids), unit.n)
            self.readout = Readout(self.model, self.clean.examples, self.outcome, self.clean.logits)
        assert self.readout is not None
        residual = resume_variants(self.model, self.clean, [self.variants[v] for v in unit.variants])
        values = torch.cat([self.readout(residual), self.readout(self.clean.last[None])])
        return values.cpu().double().numpy()

    def _hooked(self, unit: WorkUnit) -> np.ndarray:
        values = np.empty((len(unit.variants) + 1, len(unit.example_ids)))
        for length in {len(self.task.examples[r].clean) for r in unit.example_ids}:
            here = [i for i, r in enumerate(unit.example_ids) if len(self.task.examples[r].clean) == length]
            examples = [self.task.examples[unit.example_ids[i]] for i in here]
            example_ids = torch.tensor([unit.example_ids[i] for i in here], device=self.model.device)
            answers = Answers.of(examples, self.model.device)
            clean = answer_logits(self.model, examples, example_ids, ())
            measured = [answer_logits(self.model, examples, example_ids, self.variants[v]) for v in unit.variants]
            found = torch.stack([self.outcome.function(x, answers, clean) for x in [*measured, clean]])
            values[:, here] = found.cpu().double().numpy()
        return values


def prove(model: Model, example: Example, outcome: Outcome) -> None:
    """Raises FastPathUnavailable unless, on this prompt, attention output is the projection of z, and a run that is restarted from the first
    block without a change gives the model's own answer logits."""
    clean = clean_pass(model, [example], [0])
    assert model.layout is not None
    eps = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)  # models compute norms and softmax in float32
    for z, out, projection in zip(clean.z, clean.attn_out, model.layout.outputs, strict=True):
        if float((projection(z.flatten(-2).contiguous()) - out).abs().max()) > 512 * eps * float(out.abs().max()):
            raise FastPathUnavailable(
                f"{model.facts.architecture}: the output of attention is not the projection of the heads' z"
            )
    unchanged: Variant = (scale([Head(0, 0)], 1.0),)
    again = Readout(model, [example], outcome, clean.logits).logits(resume_variants(model, clean, [unchanged])[0])
    worst = float((again - clean.logits.float()).abs().max())
    if not worst <= 512 * eps * float(clean.logits.float().abs().max()):
        raise FastPathUnavailable(
            f"{model.facts.architecture}: a restarted run differs from the model by {worst:.2g} in its logits"
        )


def _not_finite(model: Model, found: np.ndarray, unit: WorkUnit, variants: Sequence[Variant], outcome: Outcome) -> str:
    row, column = np.argwhere(~np.isfinite(found))[0]
    what = "the clean run" if row == len(unit.variants) else describe(variants[unit.variants[row]])
    return (
        f"{outcome.name} of {what} on example {unit.example_ids[column]} is {found[row, column]}: {model.facts.name} computes NaN or inf in "
        f"{model.facts.dtype}. Load it in float32 or check its weights with `interp doctor`."
    )
