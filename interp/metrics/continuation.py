"""What a model says next, as it is and with heads changed: the text it would write, and how likely each next token is.

The continuation is greedy: each token is the most probable one after those before it. A change of the run is in force at every step, and
at the positions that it names of the text as it then is (``all``: also at the new tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from interp.interventions import Intervention
    from interp.models.model import Model


@dataclass(frozen=True, eq=False)
class Continuation:
    """``tokens`` are the ids that follow a prompt, the first of them drawn from ``probabilities`` [d_vocab]."""

    tokens: tuple[int, ...]
    probabilities: np.ndarray


def continue_prompt(
    model: Model, prompt: Sequence[int], *, n_tokens: int = 12, intervene: Sequence[Intervention] = ()
) -> Continuation:
    """The most probable next tokens, one after the other: ``n_tokens`` of them, fewer where the model's context ends.

    Every token costs a whole pass. Raises ValueError for an encoder, an empty prompt, one that fills the context and ``n_tokens`` below 1.
    """
    from interp.engine import run

    facts = model.facts
    facts.check_causal("A continuation")
    if not len(prompt):
        raise ValueError("There is no prompt to go on from: give at least one token.")
    if n_tokens < 1:
        raise ValueError(f"n_tokens={n_tokens} is too few: give at least 1.")
    room = n_tokens if facts.max_length is None else min(n_tokens, facts.max_length - len(prompt))
    if room < 1:
        raise ValueError(
            f"The prompt has {len(prompt)} tokens, and {facts.name} reads at most {facts.max_length}, the next one included: shorten it."
        )
    tokens, first = list(prompt), None
    for _ in range(room):
        last = run(model, tokens, intervene=intervene).logits[0, -1].double()
        first = last if first is None else first
        tokens.append(int(last.argmax()))
    assert first is not None
    return Continuation(tuple(tokens[len(prompt) :]), first.softmax(-1).cpu().numpy())


def compare_next(model: Model, before: Continuation, after: Continuation, k: int = 10) -> pd.DataFrame:
    """The ``k`` next tokens that rank highest before or after a change (half of them or more from the top of each), the most probable
    before it first.

    Columns: ``token`` (id), ``text``, ``before``, ``after`` (probabilities), ``difference`` (after - before).
    """
    import pandas as pd

    old, new = before.probabilities, after.probabilities
    ranks = [np.argsort(np.argsort(-side, kind="stable")) for side in (old, new)]
    top = np.argsort(np.minimum(*ranks), kind="stable")[:k]
    top = top[np.argsort(-old[top], kind="stable")]
    texts = model.to_words(top.tolist()) if model.tokenizer is not None else [str(token) for token in top]
    return pd.DataFrame({"token": top, "text": texts, "before": old[top], "after": new[top], "difference": (new - old)[top]})
