"""Cross-entropy of the answer in nats; larger is worse, so a head that helps has a positive effect here."""

from interp.engine.sweep.outcome import Outcome
from interp.metrics.outcomes.answer_logprob import answer_logprob


def _loss(logits, answers, clean):
    return -answer_logprob.function(logits, answers, clean)


answer_loss = Outcome("answer_loss", "nats", (0.0, None), _loss, higher_is_better=False, over_tokens="sum")
