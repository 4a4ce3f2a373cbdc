"""1 where the most likely next token is an answer, else 0."""

from interp.engine.sweep.outcome import Outcome


def _accuracy(logits, answers, clean):
    return ((logits.argmax(-1, keepdim=True) == answers.answers) & answers.answer_mask).any(-1).float()


accuracy = Outcome("accuracy", "share", (0.0, 1.0), _accuracy, differentiable=False)
