"""Probability mass on the answers minus mass on the distractors, in [-1, 1] (Hanna et al. 2023 for greater-than)."""

from interp.engine.sweep.outcome import Outcome


def _prob_diff(logits, answers, clean):
    probs = logits.softmax(-1)
    up = (probs.gather(-1, answers.answers) * answers.answer_mask).sum(-1)
    return up - (probs.gather(-1, answers.distractors) * answers.distractor_mask).sum(-1)


prob_diff = Outcome("prob_diff", "probability", (-1.0, 1.0), _prob_diff, needs_distractors=True)
