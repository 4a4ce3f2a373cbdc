"""1 where the most likely next token is an answer, else 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.engine.sweep.outcome import Answers, Outcome

if TYPE_CHECKING:
    from torch import Tensor


def _accuracy(logits: Tensor, answers: Answers, clean: Tensor) -> Tensor:
    return ((logits.argmax(-1, keepdim=True) == answers.answers) & answers.answer_mask).any(-1).float()


accuracy = Outcome("accuracy", "share", (0.0, 1.0), _accuracy, differentiable=False)
