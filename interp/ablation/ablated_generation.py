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

    With ``intervene`` every token costs a whole pass. Raises ValueError as ``interp.engine.forward.generation.generate`` does.
    """
    from interp.engine.forward.generation import generate

    written = generate(model, prompt, n_tokens, intervene=intervene)
    return Continuation(written.tokens, written.logits.softmax(-1).cpu().numpy())


def compare_next_tokens(model: Model, before: Continuation, after: Continuation, k: int = 10) -> pd.DataFrame:
    """The ``k`` next tokens that rank highest before or after a change (half of them or more from the top of each), the most probable
    before it first.

    Columns: ``token`` (id), ``text``, ``before``, ``after`` (probabilities), ``difference`` (after - before).
    """
    import pandas as pd

    old, new = before.probabilities, after.probabilities
    ranks = [np.argsort(np.argsort(-side, kind="stable")) for side in (old, new)]
    top = np.argsort(np.minimum(*ranks), kind="stable")[:k]
    top = top[np.argsort(-old[top], kind="stable")]
    texts = model.to_str_tokens(top.tolist()) if model.tokenizer is not None else [str(token) for token in top]
    return pd.DataFrame({"token": top, "text": texts, "before": old[top], "after": new[top], "difference": (new - old)[top]})
