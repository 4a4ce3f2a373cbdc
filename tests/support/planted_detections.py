"""Detections written by hand, and the planted model with its tasks that they are confirmed on."""

import numpy as np

from interp.detectors import Detection
from interp.detectors.support.null_threshold import prompt_digests
from interp.heads import HeadScores
from interp.models.model import record_of
from interp.models.planted import plant
from interp.records import RunRecord
from interp.tasks import Example, Task

SHAPE = (5, 4)


def detection_of(values, model=None, *, role="retrieval", threshold=0.5, prompts=(), **fields):
    """A detection with these scores [n_layers n_heads]."""
    values = np.asarray(values, dtype=float)
    record = RunRecord("toy") if model is None else record_of(model, task="needle", metric=role, seed=3)
    scores = HeadScores(f"{role} score", values, "share", (0.0, 1.0), record)
    control = HeadScores("with wrong targets", np.full(values.shape, 0.01), "share", (0.0, 1.0), record)
    return Detection(
        role, scores, control, np.full(values.shape, threshold), 0.05, 0.1, prompts=prompt_digests(prompts), **fields
    )


def ranked_first(model, heads, seed=0):
    """A detection that has exactly these heads above the threshold, in order, and small different scores elsewhere."""
    shape = (model.facts.n_layers, model.facts.n_heads)
    values = np.random.default_rng(seed).uniform(0.01, 0.2, shape)
    for place, head in enumerate(heads):
        values[head] = 0.9 - place / 100
    return detection_of(values, model)


def planted_case(n_kv_heads=None, seed=3, n_prompts=7):
    """A model that answers needles by one retrieval head and repeats by one induction head, and both tasks."""
    planted = plant("two_tasks", seed=seed, n_kv_heads=n_kv_heads, n_layers=5, n_heads=4, length=21, n_names=7)
    tasks = {
        kind: Task(kind, tuple(Example(*p) for p in planted.prompts(kind, n_prompts, seed=11)), "logit_diff")
        for kind in ("needle", "repeats")
    }
    return planted, tasks
