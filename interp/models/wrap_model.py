"""Wraps a Hugging Face module that is already in memory."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from interp.errors import ArtefactInvalid
from interp.models.bos import set_bos
from interp.models.find_layout import layout_of
from interp.models.model import Model
from interp.models.quantisation_method_and_tensors import weight_tensors
from interp.models.read_facts import facts_of
from interp.models.value_and_output_weights import input_size

CHECKED_AT_ONCE = 1 << 22
"""Values of a weight that are checked at once: the check of a whole embedding would take twice its memory."""


def wrap_model(
    hf: torch.nn.Module,
    tokenizer: Any = None,
    *,
    name: str = "in memory",
    revision: str = "",
    weights_form: str = "",
    bos: str = "auto",
) -> Model:
    """A Model of ``hf``, a causal language model or encoder of transformers; ``hf`` is put into eval mode and its parameters
    frozen. ``revision`` and ``weights_form`` reach the facts and every record;
    ``bos`` is auto, always or never (``models/bos.py``).

    Raises ArtefactInvalid when a weight is NaN or infinite, ValueError when the configuration lacks a size.
    """
    check_finite(weight_tensors(hf), name)
    hf.eval().requires_grad_(False)
    facts = facts_of(hf, tokenizer, name, revision, weights_form)
    layout = layout_of(hf) if facts.causal else None
    if layout is not None:  # the size of values, which is that of queries and keys in all but multi-head latent attention
        facts = replace(facts, d_head=input_size(layout.outputs[0]) // facts.n_heads)
    return set_bos(Model(facts, tokenizer, hf, layout), bos)


def check_finite(weights: Iterable[tuple[str, torch.Tensor]], name: str) -> None:
    """Raises ArtefactInvalid naming the first weight that holds NaN or infinite values."""
    for key, weight in weights:
        if weight.is_floating_point() and (bad := count_non_finite(weight)):
            raise ArtefactInvalid(f"Weight {key} of {name} holds {bad} NaN or infinite values of {weight.numel()}: not usable.")


def count_non_finite(weight: torch.Tensor) -> int:
    """The number of NaN and infinite values."""
    return sum(int((~torch.isfinite(part)).sum()) for part in weight.flatten().split(CHECKED_AT_ONCE))
