"""Weight matrices by head and token, whatever the architecture calls and lays them out as.

Weights are the model's own: no norm is folded into them, and nothing is centred. Quantised ones are refused.
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, bfloat16, float16, float32, float64, nn, stack

from interp.errors import FastPathUnavailable
from interp.models.model import Layout, Model
from interp.models.quantisation_method_and_tensors import QUANTISED

PLAIN = (bfloat16, float16, float32, float64)


def plain_weight(module: nn.Module) -> Tensor:
    """The weight of a module. Raises FastPathUnavailable where it is not a plain floating-point tensor."""
    weight: Any = module.weight
    if type(weight) not in (Tensor, nn.Parameter) or weight.dtype not in PLAIN:
        stored = f"{type(module).__name__} stores its weight as {type(weight).__name__} of {str(weight.dtype).removeprefix('torch.')}"
        raise FastPathUnavailable(
            f"Weights are read here, and this model's are quantised ({stored}): give the same model in floating point"
        )
    return weight


def input_size(projection: nn.Module) -> int:
    """The width of what a projection multiplies: ``nn.Linear`` stores its transpose, GPT-2's ``Conv1D`` the matrix itself."""
    weight: Any = projection.weight
    return int(getattr(projection, "in_features", weight.shape[0]))


def output_rows(projection: nn.Module, head: int, d_head: int) -> Float[Tensor, "d_head d_model"]:
    """Rows of W_O that one head writes through, [d_head d_model]; ``projection`` is the output projection of its layer."""
    weight = plain_weight(projection)
    rows = slice(head * d_head, (head + 1) * d_head)
    return weight[:, rows].T if isinstance(projection, nn.Linear) else weight[rows]


def output_weights(model: Model, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """W_O of a layer by head, [head d_head d_model]. Raises FastPathUnavailable for a layer whose projection reads something else, such
    as one without attention."""
    facts = model.facts
    if model.layout is None:
        _check_plain(model)
        return model.bridge.blocks[layer].attn.W_O
    projection = model.layout.outputs[layer]
    if (size := input_size(projection)) != facts.n_heads * facts.d_head:
        raise FastPathUnavailable(
            f"{facts.architecture}: the output projection of layer {layer} reads {size} numbers, not {facts.n_heads} x {facts.d_head}"
        )
    return stack([output_rows(projection, i, facts.d_head) for i in range(facts.n_heads)])


def value_weights(model: Model, layer: int) -> Float[Tensor, "head d_model d_head"]:
    """W_V of a layer by query head, [head d_model d_head]: heads of one key/value group share theirs."""
    _check_plain(model)
    return model.bridge.blocks[layer].attn.W_V.repeat_interleave(model.facts.group_size, 0)


def _check_plain(model: Model) -> None:
    if model.facts.weights_form.startswith(QUANTISED):
        name, form = model.facts.name, model.facts.weights_form
        raise FastPathUnavailable(
            f"Weights are read here, and those of {name} are {form}: give the same model in floating point"
        )


def unembed_rows(layout: Layout, ids: Int[Tensor, "*ids"]) -> Float[Tensor, "*ids d_model"]:
    """The directions in the (normed) residual stream that the logits of tokens ``ids`` are read from, [*ids d_model]."""
    weight = plain_weight(layout.unembed)
    return weight[ids] * layout.logit_scale


def unembed_bias(layout: Layout, ids: Int[Tensor, "*ids"]) -> Float[Tensor, "*ids"] | None:
    """What the unembedding adds to the logits of tokens ``ids``; None without a bias."""
    bias: Any = getattr(layout.unembed, "bias", None)
    return None if bias is None else bias[ids] * layout.logit_scale
