"""Probability mass on the answers, in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.engine.sweep.outcome import Answers, Outcome

if TYPE_CHECKING:
    from torch import Tensor


def _prob_mass(logits: Tensor, answers: Answers, clean: Tensor) -> Tensor:
    return (logits.softmax(-1).gather(-1, answers.answers) * answers.answer_mask).sum(-1)


prob_mass = Outcome("prob_mass", "probability", (0.0, 1.0), _prob_mass)
