"""Performance of the unmodified model on a task."""

import numpy as np

from interp.engine.sweep.sweep import clean_outcome
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model
from interp.tasks.task import Task


def score_task(model: Model, task: Task, metric: str = "accuracy") -> np.ndarray:
    """The outcome ``metric`` (``accuracy``, ``logit_diff`` ...) of the clean run on every example, [n_examples] float64. Raises
    LookupError for an unknown metric, ValueError if it needs distractors and the task has none."""
    return clean_outcome(model, task, OUTCOMES.get(metric))
