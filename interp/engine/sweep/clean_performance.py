"""How well the unchanged model does a task, read from clean logits that a run computes anyway."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.sweep.outcome import Answers
from interp.records import Performance, RunRecord
from interp.tasks.task import Example, Task


def right_and_preferred(
    examples: Sequence[Example], logits: Float[Tensor, "batch *n_tokens d_vocab"]
) -> Float[np.ndarray, "2 batch"]:
    """1 where the clean run is right (first row) and where it prefers the answer to the distractor, else 0; at every token of an
    answer of several."""
    answers = Answers.of(examples, logits.device)
    each = torch.stack([read(logits.flatten(0, -2), answers) for read in (is_right, is_preferred)])
    return each.unflatten(1, (-1, answers.n_tokens)).all(-1).cpu().double().numpy()


def performance(task: Task, answered: Float[np.ndarray, "2 n_examples"], metric: str, outcome: float) -> Performance:
    """The counts of ``right_and_preferred`` of all examples; ``outcome`` is the mean of ``metric``."""
    n_right, n_preferred = (int(row.sum()) for row in answered)
    compared = all(example.distractors for example in task)
    return Performance(len(task), n_right, n_preferred if compared else None, metric, outcome)


def with_performance(
    record: RunRecord, task: Task, answered: Float[np.ndarray, "2 n_examples"], metric: str, outcome: float
) -> RunRecord:
    """The record with the performance; as it is where the run is that of the corrupted prompts (``Task.swapped``)."""
    if task.arguments.get("swapped"):
        return record
    return replace(record, baseline=asdict(performance(task, answered, metric, outcome)))


def is_right(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Bool[Tensor, " batch"]:
    """Whether the most likely next token is an answer."""
    return ((logits.argmax(-1, keepdim=True) == answers.answers) & answers.answer_mask).any(-1)


def is_preferred(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Bool[Tensor, " batch"]:
    """Whether the likeliest answer is above the likeliest distractor."""

    def largest(ids: Tensor, mask: Tensor) -> Tensor:
        return logits.gather(-1, ids).masked_fill(~mask, -torch.inf).amax(-1)

    return largest(answers.answers, answers.answer_mask) > largest(answers.distractors, answers.distractor_mask)
