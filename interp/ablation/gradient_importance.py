"""Importance of heads by gradient: how fast the loss of an example changes as a head's output is made larger or smaller.

``importance = mean over examples of |sum over positions of z . d loss / d z|``, in nats for the whole of the head; 0 = no influence to
first order. The absolute value is taken for each example, so that a head that helps one and hurts another as much is important. A script
that is often copied sums the gradients of all batches before the absolute value, which gives such a head half its due or nothing,
and divides by tokens. It is a slope at the model as it is: a head that others would replace, or whose loss is flat here, looks
unimportant, and the sign is lost; ``ablate_heads`` measures what really happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from interp.heads import HeadScores
from interp.metrics.outcomes import OUTCOMES

if TYPE_CHECKING:
    from interp.models.model import Model


def gradient_importance(model: Model, prompts: Any, metric: str = "loss") -> HeadScores:
    """Mean size of the slope of each example's outcome in the size of each head's output; one backward pass for each batch of examples.

    For a task it is the slope of ``metric`` at the answer (by default the answer's cross-entropy, in nats); for texts (as in ``observe``)
    that of the mean cross-entropy of all tokens after the first. Prompts may differ in length; each counts once. Raises LookupError
    for an unknown metric; ValueError for one without a gradient, for another than ``loss`` of texts, and for a text of one token.
    arXiv 1905.10650 (there with ``normalise_layers``).
    """
    from interp.engine.attention.as_task import as_task
    from interp.engine.forward.run import record_of
    from interp.engine.gradients.attribution_patching import head_gate_gradients
    from interp.tasks.task import Task

    outcome = OUTCOMES.get(metric)
    if not isinstance(prompts, Task) and metric != "loss":
        raise ValueError(f"Metric {metric!r} is of a task's answers, and texts have none: use loss, or give a task.")
    task = as_task(model, prompts)
    slopes = head_gate_gradients(model, task, outcome if task is prompts else None)
    if not np.isfinite(slopes).all():
        raise ValueError(f"The gradients of {model.facts.name} in {model.facts.dtype} are not finite: load it in float32.")
    arguments = task.provenance
    record = record_of(model, task=task.name, arguments=arguments, metric=metric)
    return HeadScores("gradient_importance", np.abs(slopes).mean(2), outcome.unit, (0.0, None), record)


def normalise_layers(scores: HeadScores) -> HeadScores:
    """The same scores divided by their Euclidean length over the heads of each layer: which heads of a layer matter, when layers
    differ in scale. A layer of zeros stays 0. Heads of different layers are then no longer to be compared by size."""
    length = np.sqrt(np.nansum(scores.values**2, axis=1, keepdims=True))
    values = scores.values / np.where(length > 0, length, 1)
    bounds = (0.0 if scores.bounds[0] == 0 else -1.0, 1.0)
    return HeadScores(
        f"{scores.name} within its layer", values, "share of the layer's norm", bounds, scores.record, scores.nan_reason
    )
