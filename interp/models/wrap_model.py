"""Wraps a Hugging Face module that is already in memory."""

from collections.abc import Iterable
from typing import Any

import torch

from interp.errors import ArtefactInvalid
from interp.models.facts import facts_of
from interp.models.layout import layout_of
from interp.models.model import Model


def wrap_model(hf: torch.nn.Module, tokenizer: Any = None, *, name: str = "in memory", revision: str = "") -> Model:
    """A Model of ``hf``, a causal language model or encoder of transformers; ``hf`` is put into eval mode and its parameters
    frozen. Raises ArtefactInvalid when a weight is NaN or infinite, ValueError when the configuration lacks a size."""
    check_finite(hf.named_parameters(), name)
    hf.eval().requires_grad_(False)
    return Model(facts_of(hf, tokenizer, name, revision), tokenizer, hf, layout_of(hf))


def check_finite(weights: Iterable[tuple[str, torch.Tensor]], name: str) -> None:
    """Raises ArtefactInvalid naming the first weight that holds NaN or infinite values."""
    for key, weight in weights:
        if bad := int((~torch.isfinite(weight)).sum()):
            raise ArtefactInvalid(f"Weight {key} of {name} holds {bad} NaN or infinite values of {weight.numel()}: not usable.")
