"""The model as transformers runs it by itself: what every other way of running it is checked against before its first number."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from interp.models.model import Model

CONDITIONING, DRAWS = 8.0, 3


def plain_copy(model: Model) -> Any:
    """A second module tree over the model's parameters (shared storage) with its own configuration and buffers, and with the attention
    that the model had when it was wrapped: the engine replaces attention and forwards for the length of a sweep."""
    assert model.hf is not None
    twin: Any = copy.deepcopy(model.hf, {id(p): p for p in model.hf.parameters()})
    for module in twin.modules():
        module.__dict__.pop("forward", None)
    if twin.config._attn_implementation != model.own_attention:
        twin.set_attn_implementation(model.own_attention)
    return twin


def relative_error(found: Float[Tensor, "*batch d_vocab"], wanted: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch"]:
    """The largest difference between the logits of each position, relative to the largest distance of its wanted ones from their mean;
    0 where both overflow."""
    overflown = ~(wanted.isfinite() | found.isfinite()).all(-1)
    wanted = wanted.double()
    scale = (wanted - wanted.mean(-1, keepdim=True)).abs().amax(-1).clamp(min=torch.finfo(torch.float32).tiny)
    return ((found.double() - wanted).abs().amax(-1) / scale).masked_fill(overflown, 0.0)


def unexplained_error(plain: Any, tokens: Int[Tensor, "batch pos"], found: Tensor, wanted: Tensor) -> float:
    """The largest relative error of outputs for these tokens, at any position, that rounding does not explain; else 0."""
    error = relative_error(found, wanted)
    if (error <= rounding(wanted.dtype)).all():
        return 0.0
    wrong = ~(error <= explained_error(plain, tokens, wanted))
    return float(error[wrong].max()) if wrong.any() else 0.0


def explained_error(plain: Any, tokens: Int[Tensor, "batch pos"], wanted: Tensor) -> Float[Tensor, "*batch"]:
    """The relative error that rounding explains, at each position.

    Where attention decides between keys that tie, a change in the last digit of the embedding changes the plain model's outputs as well:
    differences up to ``CONDITIONING`` times that change are explained.
    """
    eps = max(torch.finfo(wanted.dtype).eps, torch.finfo(torch.float32).eps)
    draw = torch.Generator().manual_seed(0)

    def disturb(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output * (1 + eps * torch.randn(output.shape, generator=draw).to(output))

    with torch.no_grad(), plain.get_input_embeddings().register_forward_hook(disturb):
        changes = [relative_error(outputs_of(plain, tokens, wanted.dim()), wanted) for _ in range(DRAWS)]
    return (CONDITIONING * torch.stack(changes).amax(0)).clamp(min=rounding(wanted.dtype))


def outputs_of(plain: Any, tokens: Int[Tensor, "batch pos"], dimensions: int = 3) -> Tensor:
    """Logits (hidden states of a bare encoder) of equally long texts, [batch pos d_vocab]; with two dimensions those of the last token."""
    with torch.no_grad():
        return plain(input_ids=tokens)[0] if dimensions == 3 else plain(input_ids=tokens, logits_to_keep=1)[0][:, -1]


def rounding(dtype: torch.dtype) -> float:
    """The relative error that rounding may cause; norms, softmax and rotary embeddings compute in float32 whatever the model's dtype."""
    return max(4 * torch.finfo(dtype).eps, 512 * torch.finfo(torch.float32).eps)
