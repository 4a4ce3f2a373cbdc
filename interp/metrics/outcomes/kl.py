"""KL(clean || changed) of the next-token distribution at the answer position, in nats; 0 for the clean run, larger = more changed."""

from interp.engine.sweep.outcome import Outcome


def _kl(logits, answers, clean):
    p, q = clean.log_softmax(-1), logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).clamp(min=0)


kl = Outcome("kl", "nats", (0.0, None), _kl, relative_to_clean=True, higher_is_better=False, differentiable=False)
