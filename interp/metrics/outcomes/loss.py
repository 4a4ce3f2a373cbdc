"""Cross-entropy of the answer in nats; larger is worse, so a head that helps has a positive effect here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.engine.sweep.outcome import Answers, Outcome
from interp.metrics.outcomes.answer_logprob import answer_logprob

if TYPE_CHECKING:
    from torch import Tensor


def _loss(logits: Tensor, answers: Answers, clean: Tensor) -> Tensor:
    return -answer_logprob.function(logits, answers, clean)


loss = Outcome("loss", "nats", (0.0, None), _loss, higher_is_better=False)
