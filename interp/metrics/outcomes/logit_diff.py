"""Logit of the answer minus logit of the distractor (means, where there are several); the standard metric of circuit work."""

from interp.engine.sweep.outcome import Outcome


def _weights(answers):
    def share(mask):
        return mask.float() / mask.sum(-1, keepdim=True).clamp(min=1)

    return share(answers.answer_mask), -share(answers.distractor_mask)


def _logit_diff(logits, answers, clean):
    up, down = _weights(answers)
    return (logits.gather(-1, answers.answers) * up).sum(-1) + (logits.gather(-1, answers.distractors) * down).sum(-1)


logit_diff = Outcome("logit_diff", "logits", (None, None), _logit_diff, weights=_weights, needs_distractors=True)
