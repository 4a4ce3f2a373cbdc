"""An outcome: one number per example, computed from the logits that predict the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.tasks.task import Example, Task

if TYPE_CHECKING:  # reading a stored run needs the meaning of an outcome, and no torch
    import torch
    from jaxtyping import Bool, Int
    from torch import Tensor

SLACK = 1e-4  # by which rounding may leave the bounds of an outcome


@dataclass(frozen=True)
class Answers:
    """Answer and distractor tokens of a batch, padded with token 0 and a False mask."""

    answers: Int[Tensor, "batch n_answers"]
    answer_mask: Bool[Tensor, "batch n_answers"]
    distractors: Int[Tensor, "batch n_distractors"]
    distractor_mask: Bool[Tensor, "batch n_distractors"]

    @classmethod
    def of(cls, examples: Sequence[Example], device: torch.device | str = "cpu") -> Answers:
        return cls(*_pad([e.answers for e in examples], device), *_pad([e.distractors for e in examples], device))

    def repeat(self, times: int) -> Answers:
        """The same answers for ``times`` variants of the batch, variants outermost."""
        return Answers(*(t.repeat(times, 1) for t in (self.answers, self.answer_mask, self.distractors, self.distractor_mask)))


@dataclass(frozen=True)
class Outcome:
    """A named function of the answer logits.

    ``function(logits[batch d_vocab], answers, clean_logits[batch d_vocab]) -> [batch]`` in float32. An outcome that is a
    weighted sum of answer and distractor logits gives those weights in ``weights(answers) -> (answer weights, distractor
    weights)``; only these columns of the unembedding are then computed. ``relative_to_clean`` outcomes measure a change from
    the clean run. ``differentiable`` is False for step functions and for those with their minimum at the clean run.
    """

    name: str
    unit: str
    bounds: tuple[float | None, float | None]
    function: Callable[[Tensor, Answers, Tensor], Tensor]
    weights: Callable[[Answers], tuple[Tensor, Tensor]] | None = None
    needs_distractors: bool = False
    relative_to_clean: bool = False
    higher_is_better: bool = True
    differentiable: bool = True

    @property
    def sign_meaning(self) -> str:
        """How to read the sign of an effect, ``outcome(ablated) - outcome(clean)``."""
        if self.relative_to_clean:
            return "larger = the head mattered more"
        return f"{'negative' if self.higher_is_better else 'positive'} = the head helped"

    def check_bounds(self, values: Tensor | np.ndarray, example_ids: Sequence[int]) -> None:
        """Raises ValueError when one of the values [... n_examples] lies outside ``bounds`` by more than rounding."""
        for side, sign, bound in zip(("lower", "upper"), (-1, 1), self.bounds, strict=True):
            outside = [] if bound is None else (sign * (values - bound) > SLACK * max(1.0, abs(bound))).reshape(-1).tolist()
            if any(outside):
                value, example = float(values.reshape(-1)[outside.index(True)]), outside.index(True) % len(example_ids)
                raise ValueError(
                    f"Metric {self.name!r} is {value:.6g} on example {example_ids[example]}, and its declared {side} bound is {bound:g}: "
                    f"correct its function or its bounds."
                )


def check_outcome(task: Task, outcome: Outcome) -> None:
    """Raises ValueError when the outcome needs distractors and an example has none."""
    without = [i for i, example in enumerate(task) if not example.distractors]
    if outcome.needs_distractors and without:
        raise ValueError(
            f"Metric {outcome.name!r} compares answers with distractors, and example {without[0]} of task {task.name!r} has none: "
            f"add distractors or use answer_logprob."
        )


def check_gradient(outcome: Outcome) -> None:
    """Raises ValueError for an outcome that is not differentiable at the clean run."""
    if not outcome.differentiable:
        raise ValueError(f"Metric {outcome.name!r} has no gradient at the clean run: use logit_diff, or the exact estimator.")


def _pad(rows: Sequence[tuple[int, ...]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    import torch

    width = max(1, *map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    return ids, torch.tensor([[i < len(row) for i in range(width)] for row in rows], device=device)
