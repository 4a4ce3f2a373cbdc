"""Log-probability of the answer (of any of them, where there are several), in nats; at most 0."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from interp.engine.sweep.outcome import Answers, Outcome

if TYPE_CHECKING:
    from torch import Tensor


def _answer_logprob(logits: Tensor, answers: Answers, clean: Tensor) -> Tensor:
    chosen = logits.gather(-1, answers.answers).masked_fill(~answers.answer_mask, -inf)
    return chosen.logsumexp(-1) - logits.logsumexp(-1)


answer_logprob = Outcome("answer_logprob", "nats", (None, 0.0), _answer_logprob)
