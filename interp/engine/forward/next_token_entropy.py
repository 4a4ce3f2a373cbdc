"""Entropy of the next token at each position of a text."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.model import Model

ROWS = 256
"""Tokens whose probabilities over the vocabulary are in memory at once."""


def next_token_entropy(model: Model, tokens: Sequence[int], start: int = 0) -> Float[Tensor, " pos"]:
    """Shannon entropy in nats of the next token, after each token of one text from position ``start`` on, [pos]."""
    assert model.hf is not None
    with model.lock, torch.inference_mode():
        ids = torch.tensor([list(tokens)], device=model.device)
        logits = model.hf(input_ids=ids, use_cache=False, logits_to_keep=len(tokens) - start).logits[0]
        return torch.cat([torch.special.entr(part.double().softmax(-1)).sum(-1) for part in logits.split(ROWS)]).cpu()
