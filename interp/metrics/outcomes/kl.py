"""KL(clean || changed) of the next-token distribution at the answer position, in nats; 0 for the clean run, larger = more changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.engine.sweep.outcome import Answers, Outcome

if TYPE_CHECKING:
    from torch import Tensor


def _kl(logits: Tensor, answers: Answers, clean: Tensor) -> Tensor:
    p, q = clean.log_softmax(-1), logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).clamp(min=0)


kl = Outcome("kl", "nats", (0.0, None), _kl, relative_to_clean=True, higher_is_better=False, differentiable=False)
