"""Probability mass on the answers minus mass on the distractors, in [-1, 1] (Hanna et al. 2023 for greater-than)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.engine.sweep.outcome import Answers, Outcome

if TYPE_CHECKING:
    from torch import Tensor


def _prob_diff(logits: Tensor, answers: Answers, clean: Tensor) -> Tensor:
    probs = logits.softmax(-1)
    up = (probs.gather(-1, answers.answers) * answers.answer_mask).sum(-1)
    return up - (probs.gather(-1, answers.distractors) * answers.distractor_mask).sum(-1)


prob_diff = Outcome("prob_diff", "probability", (-1.0, 1.0), _prob_diff, needs_distractors=True)
