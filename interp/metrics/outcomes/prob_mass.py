"""Probability mass on the answers, in [0, 1]; of an answer of several tokens the product over its tokens."""

from interp.engine.sweep.outcome import Outcome


def _prob_mass(logits, answers, clean):
    return (logits.softmax(-1).gather(-1, answers.answers) * answers.answer_mask).sum(-1)


prob_mass = Outcome("prob_mass", "probability", (0.0, 1.0), _prob_mass, over_tokens="product")
