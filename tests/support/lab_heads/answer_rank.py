"""Rank of the answer among all next tokens: 0 where it is the most likely one."""

from interp.metrics import Outcome


def _answer_rank(logits, answers, clean):
    best = logits.gather(-1, answers.answers).masked_fill(~answers.answer_mask, float("-inf")).amax(-1)
    return (logits > best[:, None]).sum(-1).float()


answer_rank = Outcome("answer_rank", "rank", (0.0, None), _answer_rank, higher_is_better=False, differentiable=False)
