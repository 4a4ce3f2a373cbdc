"""Gradient importance of heads: the sensitivity of the loss to scaling a head's output (Michel et al. 2019, arXiv 1905.10650).

``importance = mean over examples of |sum over positions of z . d loss / d z|``, in nats per unit of scale; 0 = no influence to first
order. The absolute value is taken per example, so that a head that helps one example and hurts another counts as important. A widely
copied script sums the gradients of all batches before the absolute value, which lets such examples cancel, and divides by tokens. The
gradient is local: a head that others would replace, or at which the loss is flat, has a low importance; and the sign is lost. Use
``ablate_heads`` to measure the effect itself.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from interp.engine.gradients import attribution_patching
from interp.heads import HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.tasks.task import Task
from interp.tasks.texts_as_task import as_task


def gradient_importance(model: Model, prompts: Any, metric: str = "answer_loss") -> HeadScores:
    """Mean absolute derivative of each example's outcome with respect to the scale of each head's output, from one backward pass per batch.

    For a task the outcome is ``metric`` at the answer (by default the answer's cross-entropy in nats); for texts (as in ``observe``) the
    mean cross-entropy of all tokens after the first. Prompts may differ in length and have equal weight. Raises LookupError for an
    unknown metric; ValueError for a metric without a gradient, for any metric other than the default on texts, and for a text of one
    token. The paper applies ``normalise_layers`` to the result.
    """
    outcome = OUTCOMES.get(metric)
    if not isinstance(prompts, Task) and metric != "answer_loss":
        raise ValueError(
            f"Metric {metric!r} is computed at a task's answers, and texts have none: leave the metric out, or pass a task."
        )
    task = as_task(model, prompts)
    slopes = attribution_patching.head_gate_gradients(model, task, outcome if task is prompts else None)
    if not np.isfinite(slopes).all():
        raise ValueError(f"The gradients of {model.facts.name} are not finite in {model.facts.dtype}: load it in float32.")
    record = record_of(model, task=task.name, arguments=task.provenance, metric=metric)
    return HeadScores("gradient_importance", np.abs(slopes).mean(2), outcome.unit, (0.0, None), record)


def normalise_layers(scores: HeadScores) -> HeadScores:
    """The scores divided by their L2 norm over the heads of each layer, which ranks heads within layers of different scale; a layer of
    zeros stays 0. The result is not comparable across layers."""
    norm = np.sqrt(np.nansum(scores.values**2, axis=1, keepdims=True))
    values = scores.values / np.where(norm > 0, norm, 1)
    name, bounds = f"{scores.name} within its layer", (0.0 if scores.bounds[0] == 0 else -1.0, 1.0)
    return replace(scores, name=name, values=values, unit="share of the layer's norm", bounds=bounds)
