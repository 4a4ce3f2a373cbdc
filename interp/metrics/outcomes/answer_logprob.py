"""Log-probability of the answer (of any of them, where there are several), in nats; at most 0."""

import torch
from torch import Tensor

from interp.engine.sweep.outcome import Answers, Outcome


def _answer_logprob(logits: Tensor, answers: Answers, clean: Tensor) -> Tensor:
    chosen = logits.gather(-1, answers.answers).masked_fill(~answers.answer_mask, -torch.inf)
    return chosen.logsumexp(-1) - logits.logsumexp(-1)


answer_logprob = Outcome("answer_logprob", "nats", (None, 0.0), _answer_logprob)
