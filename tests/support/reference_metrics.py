"""The other road to a metric: the whole pattern, as transformers' eager attention returns it, and the metric's formula on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from interp.models import Model

FORMULAS = ("attention_distance", "entropy", "received_attention")


def eager_pattern(hf: PreTrainedModel, **inputs: Tensor) -> Tensor:
    """[n_layers batch head query key] of one pass of a module that nothing else uses."""
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        return torch.stack(hf(**inputs, output_attentions=True).attentions)


def hooked_pattern(model: Model, tokens: Tensor) -> Tensor:
    """The bridge's own patterns, [n_layers batch head query key]."""
    _, cache = model.bridge.run_with_cache(tokens)
    return torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(model.facts.n_layers)])


def reference_metrics_of(pattern: Tensor, seen: Tensor | None = None, *, causal: bool = True) -> dict[str, Tensor]:
    """The metrics of ``FORMULAS`` of texts without padding, [n_layers batch head pos] each, in float64. ``seen`` [... query key] says which
    keys a query sees: by default all, or where ``causal`` all up to itself."""
    pattern = pattern.double()
    place = torch.arange(pattern.shape[-1])
    back = place[:, None] - place
    seen = (back >= 0) | (not causal) if seen is None else seen
    return {
        "attention_distance": (pattern * back.abs()).sum(-1),
        "entropy": -torch.xlogy(pattern, pattern).sum(-1),
        "received_attention": pattern.sum(-2) / seen.sum(-2),
    }


def same(found: Tensor, wanted: Tensor) -> bool:
    """Whether two tables differ by at most 1e-5 of 1 + |value|, with NaN in the same places."""
    near = (found - wanted).abs() <= 1e-5 * (1 + wanted.abs())
    return found.shape == wanted.shape and bool((near | (torch.isnan(found) & torch.isnan(wanted))).all())
