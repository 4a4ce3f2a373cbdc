"""1 where the most likely next token is an answer, else 0; of an answer of several tokens, where each is (exact match, teacher-forced)."""

from interp.engine.sweep.clean_performance import is_right
from interp.engine.sweep.outcome import Outcome


def _accuracy(logits, answers, clean):
    return is_right(logits, answers).float()


accuracy = Outcome("accuracy", "share", (0.0, 1.0), _accuracy, differentiable=False, over_tokens="product")
