"""Log-probability of the answer (of any of them, where there are several), in nats; at most 0.

Of an answer of several tokens the sum over its tokens, each given those before it.
"""

from math import inf

from interp.engine.sweep.outcome import Outcome


def _answer_logprob(logits, answers, clean):
    chosen = logits.log_softmax(-1).gather(-1, answers.answers)
    return chosen.masked_fill(~answers.answer_mask, -inf).logsumexp(-1)


answer_logprob = Outcome("answer_logprob", "nats", (None, 0.0), _answer_logprob, over_tokens="sum")
