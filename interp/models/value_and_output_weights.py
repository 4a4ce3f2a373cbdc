"""Weight matrices by head and token, whatever the architecture calls and lays them out as.

Weights are the model's own: no norm is folded into them, and nothing is centred.
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn, stack

from interp.models.model import Layout, Model


def output_rows(projection: nn.Module, head: int, d_head: int) -> Float[Tensor, "d_head d_model"]:
    """Rows of W_O that one head writes through, [d_head d_model]; ``projection`` is the output projection of its layer."""
    weight: Any = projection.weight
    rows = slice(head * d_head, (head + 1) * d_head)
    return weight[:, rows].T if isinstance(projection, nn.Linear) else weight[rows]


def output_weights(model: Model, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """W_O of a layer by head, [head d_head d_model]."""
    if model.layout is None:
        return model.bridge.blocks[layer].attn.W_O
    return stack([output_rows(model.layout.outputs[layer], i, model.facts.d_head) for i in range(model.facts.n_heads)])


def value_weights(model: Model, layer: int) -> Float[Tensor, "head d_model d_head"]:
    """W_V of a layer by query head, [head d_model d_head]: heads of one key/value group share theirs."""
    return model.bridge.blocks[layer].attn.W_V.repeat_interleave(model.facts.group_size, 0)


def unembed_rows(layout: Layout, ids: Int[Tensor, "*ids"]) -> Float[Tensor, "*ids d_model"]:
    """The directions in the (normed) residual stream that the logits of tokens ``ids`` are read from, [*ids d_model]."""
    weight: Any = layout.unembed.weight
    return weight[ids]


def unembed_bias(layout: Layout, ids: Int[Tensor, "*ids"]) -> Float[Tensor, "*ids"] | None:
    """What the unembedding adds to the logits of tokens ``ids``; None without a bias."""
    bias: Any = getattr(layout.unembed, "bias", None)
    return None if bias is None else bias[ids]
