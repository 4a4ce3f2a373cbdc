"""The other road to a metric: the whole pattern, as transformers' eager attention returns it, and the metric's formula on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMULAS = ("attention_distance", "entropy", "received_attention")


def eager_pattern(hf: PreTrainedModel, **inputs: Tensor) -> Tensor:
    """[n_layers batch head query key] of one pass of a module that nothing else uses."""
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        return torch.stack(hf(**inputs, output_attentions=True).attentions)


def from_pattern(pattern: Tensor, *, causal: bool) -> dict[str, Tensor]:
    """The metrics of ``FORMULAS`` of texts without padding, [n_layers batch head pos] each."""
    place = torch.arange(pattern.shape[-1])
    gap = (place[:, None] - place).abs()
    rows_that_see = (len(place) - place) if causal else len(place)
    return {
        "attention_distance": (pattern * gap).sum(-1),
        "entropy": torch.special.entr(pattern).sum(-1),
        "received_attention": pattern.sum(-2) / rows_that_see,
    }


def same(found: Tensor, wanted: Tensor) -> bool:
    """Whether two tables differ by at most 1e-5 of 1 + |value|."""
    return bool(((found - wanted).abs() <= 1e-5 * (1 + wanted.abs())).all())
