"""Wraps a Hugging Face module that is already in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.errors import ArtefactInvalid
from interp.models.facts import facts_of
from interp.models.layout import layout_of
from interp.models.model import Model

if TYPE_CHECKING:
    from torch import nn


def wrap_model(hf: nn.Module, tokenizer: Any = None, *, name: str = "in memory", revision: str = "") -> Model:
    """A Model of ``hf``, a causal language model or encoder of transformers; ``hf`` is put into eval mode and its parameters frozen.

    Raises ArtefactInvalid when a weight is NaN or infinite, ValueError when the configuration lacks a size.
    """
    check_finite(hf, name)
    hf.eval().requires_grad_(False)
    return Model(facts_of(hf, tokenizer, name, revision), tokenizer, hf, layout_of(hf))


def check_finite(module: nn.Module, name: str) -> None:
    """Raises ArtefactInvalid naming the first parameter that holds NaN or infinite values."""
    import torch

    for key, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            bad = int((~torch.isfinite(parameter)).sum())
            raise ArtefactInvalid(
                f"Weight {key} of {name} holds {bad} NaN or infinite values of {parameter.numel()}: not usable."
            )
