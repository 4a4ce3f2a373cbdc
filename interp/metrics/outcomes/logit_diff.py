"""Logit of the answer minus logit of the distractor (means, where there are several); the standard metric of circuit work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.engine.sweep.outcome import Answers, Outcome

if TYPE_CHECKING:
    from torch import Tensor


def _weights(answers: Answers) -> tuple[Tensor, Tensor]:
    def share(mask: Tensor) -> Tensor:
        return mask.float() / mask.sum(-1, keepdim=True).clamp(min=1)

    return share(answers.answer_mask), -share(answers.distractor_mask)


def _logit_diff(logits: Tensor, answers: Answers, clean: Tensor) -> Tensor:
    up, down = _weights(answers)
    return (logits.gather(-1, answers.answers) * up).sum(-1) + (logits.gather(-1, answers.distractors) * down).sum(-1)


logit_diff = Outcome("logit_diff", "logits", (None, None), _logit_diff, weights=_weights, needs_distractors=True)
