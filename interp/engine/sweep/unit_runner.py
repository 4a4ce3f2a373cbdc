"""The outcomes of one work unit: resumed from the clean pass where that is verified, else by hooked passes."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp.engine.sweep.clean_pass import CleanPass, clean_pass
from interp.engine.sweep.clean_performance import right_and_preferred
from interp.engine.sweep.hooked_outcomes import hooked_outcomes
from interp.engine.sweep.outcome import Outcome
from interp.engine.sweep.readout import Readout
from interp.engine.sweep.resume_from_layer import resume_variants
from interp.engine.sweep.variant import Variant, changes_patterns, describe, pattern_changes
from interp.engine.sweep.verify_resumption import verify_resumption
from interp.engine.sweep.work_units import WorkPlan, WorkUnit
from interp.errors import FastPathUnavailable
from interp.models.model import Model
from interp.tasks.task import Task

N_CLEAN_ROWS = 3
"""Rows of a unit that say what the clean run does: its outcome, and ``right_and_preferred``."""


class UnitRunner:
    """Measures work units and keeps the last clean pass; ``backend`` is ``resumed``, ``hooked`` or, if neither is forced, None."""

    def __init__(
        self, model: Model, task: Task, variants: Sequence[Variant], outcome: Outcome, plan: WorkPlan, backend: str | None
    ) -> None:
        self.model, self.task, self.variants, self.outcome = model, task, variants, outcome
        if backend == "resumed" and not plan.resumable:
            raise FastPathUnavailable("A variant changes a head twice, and cannot be resumed: use the hooked backend")
        self.backend = backend if plan.resumable else "hooked"
        self.n_positions, self.verified = {unit.n_positions for unit in plan.units}, False
        self.shared: CleanPass | None = None
        self.clean: CleanPass | None = None
        self.readout: Readout | None = None

    def measure(self, unit: WorkUnit) -> np.ndarray:
        """Outcomes of the unit's variants and, in the last ``N_CLEAN_ROWS`` rows, what the clean run does: [n_variants + 3 n_examples].

        Raises ValueError when one is not finite or outside the bounds of the outcome.
        """
        values, clean_logits = self._measure(unit)
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            run = "the clean run" if row == len(unit.variants) else describe(self.variants[unit.variants[row]])
            raise ValueError(
                f"{self.outcome.name} of {run} on example {unit.example_ids[column]} is {values[row, column]}: {self.model.facts.name} "
                f"computes NaN or inf in {self.model.facts.dtype}. Load it in float32 or check its weights with `interp doctor`."
            )
        self.outcome.check_bounds(values, unit.example_ids)
        return np.concatenate([values, right_and_preferred([self.task.examples[i] for i in unit.example_ids], clean_logits)])

    def _measure(self, unit: WorkUnit) -> tuple[np.ndarray, Tensor]:
        """Outcomes of the variants and of the clean run, and the logits of the clean run."""
        if self.backend != "hooked":
            try:
                return self._resumed(unit)
            except FastPathUnavailable as reason:
                if self.backend == "resumed":
                    raise
                warnings.warn(f"{reason}; using the slower hooked backend.", stacklevel=4)
                self.backend = "hooked"
        return hooked_outcomes(self.model, self.task, unit, self.variants, self.outcome)

    def _resumed(self, unit: WorkUnit) -> tuple[np.ndarray, Tensor]:
        clean, readout = self._clean_pass(unit)
        residual = resume_variants(self.model, clean, [self.variants[v] for v in unit.variants])
        return torch.cat([readout(residual), readout(clean.final_residual[None])]).cpu().double().numpy(), clean.logits

    def _clean_pass(self, unit: WorkUnit) -> tuple[CleanPass, Readout]:
        if not self.verified:
            verify_resumption(self.model, self.task.examples, self.n_positions, patterns=changes_patterns(self.variants))
        ids = unit.clean.example_ids
        if self.shared is None or self.shared.example_ids.tolist() != list(ids):
            self.shared = self.clean = self.readout = None  # frees the previous clean pass first
            examples, changes = [self.task.examples[i] for i in ids], pattern_changes(self.variants)
            self.shared = clean_pass(self.model, examples, ids, unit.clean.start, changes, n_before=unit.clean.n_before)
        if self.clean is None or self.readout is None or self.clean.example_ids.tolist() != list(unit.example_ids):
            self.clean = self.shared.select(list(unit.example_ids), unit.n_positions)
            self.readout = Readout(self.model, self.clean.examples, self.outcome, self.clean.logits)
        if not self.verified:
            self.readout.verify(self.clean.final_residual)
            self.verified = True
        return self.clean, self.readout
