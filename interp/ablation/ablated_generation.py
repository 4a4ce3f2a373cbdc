"""Greedy generation with and without interventions: the continuation of a prompt, and the distribution of its first token.

Interventions apply at every step, at their positions in the text generated so far (``all`` includes the generated tokens).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp._short_repr import short_repr
from interp.engine.forward.generation import generate
from interp.interventions import Intervention
from interp.models.model import Model


@short_repr
@dataclass(frozen=True, eq=False)
class Continuation:
    """``tokens`` are the generated ids; ``probabilities`` [d_vocab] is the distribution of the first."""

    tokens: tuple[int, ...]
    probabilities: np.ndarray


def continue_prompt(
    model: Model, prompt: Sequence[int], *, n_tokens: int = 12, intervene: Sequence[Intervention] = ()
) -> Continuation:
    """The greedy continuation of a prompt by ``n_tokens`` tokens, or fewer at the end of the model's context.

    With ``intervene`` each token needs a full forward pass. Raises ValueError as ``interp.engine.forward.generation.generate`` does.
    """
    generated = generate(model, prompt, n_tokens, intervene=intervene)
    return Continuation(generated.tokens, generated.logits.softmax(-1).cpu().numpy())


def compare_next_tokens(model: Model, before: Continuation, after: Continuation, k: int = 10) -> pd.DataFrame:
    """The ``k`` next tokens of best rank in either distribution, in descending order of probability before.

    Columns: ``token`` (id), ``text``, ``before``, ``after`` (probabilities), ``difference`` (after - before).
    """
    old, new = before.probabilities, after.probabilities
    ranks = [np.argsort(np.argsort(-side, kind="stable")) for side in (old, new)]
    top = np.argsort(np.minimum(*ranks), kind="stable")[:k]
    top = top[np.argsort(-old[top], kind="stable")]
    texts = model.to_str_tokens(top.tolist()) if model.tokenizer is not None else [str(token) for token in top]
    return pd.DataFrame({"token": top, "text": texts, "before": old[top], "after": new[top], "difference": (new - old)[top]})
