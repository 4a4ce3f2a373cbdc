"""How well the unchanged model does a task, counted from logits that a run computes anyway."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.forward.run import plain_logits, quiet_inference
from interp.engine.sweep.outcome import Answers
from interp.engine.sweep.work_units import batches
from interp.models.model import Model
from interp.records import Performance, RunRecord
from interp.tasks.task import Task


class PerformanceCounter:
    """Counts right prompts: ``add`` takes the clean logits of some examples, ``record`` the examples that nobody added as well."""

    def __init__(self, model: Model, task: Task) -> None:
        self.model, self.task = model, task
        self.answered = np.full((2, len(task)), np.nan)

    def add(self, example_ids: Sequence[int], logits: Float[Tensor, "batch *n_tokens d_vocab"]) -> None:
        """Reads the clean logits of these examples, once."""
        if np.isnan(self.answered[0, list(example_ids)]).any():
            answers = Answers.of([self.task.examples[i] for i in example_ids], logits.device)
            each = torch.stack([read(logits.flatten(0, -2), answers) for read in (is_right, is_preferred)])
            self.answered[:, list(example_ids)] = each.unflatten(1, (-1, answers.n_tokens)).all(-1).cpu().numpy()

    def performance(self, metric: str, outcome: float) -> Performance:
        """The counts; ``outcome`` is the mean of ``metric``."""
        self._add_missing()
        n_right, n_preferred = self.answered.sum(1).astype(int).tolist()
        compared = all(example.distractors for example in self.task)
        return Performance(len(self.task), n_right, n_preferred if compared else None, metric, outcome)

    def record(self, record: RunRecord, metric: str, outcome: float) -> RunRecord:
        """The record with the performance; as it is where the run is that of the corrupted prompts (``Task.swapped``)."""
        if self.task.arguments.get("swapped"):
            return record
        return replace(record, baseline=asdict(self.performance(metric, outcome)))

    def _add_missing(self) -> None:
        """Runs the examples whose clean logits were not needed, such as those of a resumed sweep."""
        missing = np.isnan(self.answered[0]).nonzero()[0].tolist()
        with self.model.lock, quiet_inference():
            for part in batches(self.task.select(missing)) if missing else ():
                example_ids = [missing[i] for i in part]
                self.add(example_ids, plain_logits(self.model, [self.task.examples[i] for i in example_ids]))


def is_right(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Bool[Tensor, " batch"]:
    """Whether the most likely next token is an answer."""
    return ((logits.argmax(-1, keepdim=True) == answers.answers) & answers.answer_mask).any(-1)


def is_preferred(logits: Float[Tensor, "batch d_vocab"], answers: Answers) -> Bool[Tensor, " batch"]:
    """Whether the likeliest answer is above the likeliest distractor."""

    def largest(ids: Tensor, mask: Tensor) -> Tensor:
        return logits.gather(-1, ids).masked_fill(~mask, -torch.inf).amax(-1)

    return largest(answers.answers, answers.answer_mask) > largest(answers.distractors, answers.distractor_mask)
