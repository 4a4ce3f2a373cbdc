"""Bloom, adapted to use an exchangeable attention function as other models do.

Its attention modules add their own position bias (ALiBi, arXiv 2108.12409) and call no attention function. The bias of a key is
the head's slope times the key's position, which Bloom counts from the start of the text and the engine from the query: this
differs by a constant per row, which changes no weight, and gives small numbers where weights are large. The bias is computed in
float32; Bloom rounds it to the dtype of its weights.
"""

import math
from collections.abc import Callable, Container
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def switch(model: Any, name: str, read: Container[nn.Module], attention: Callable[..., Any] | None) -> None:
    """``model.set_attn_implementation(name)``, also for Bloom where its modules are among those to ``read``: they then call
    ``attention``, or with None their own forward."""
    modules = [module for module in model.modules() if type(module).__name__ == "BloomAttention"]
    if not any(module in read for module in modules):
        model.set_attn_implementation(name)
        return
    model.config._attn_implementation = name  # selects the masks passed to the modules
    for module in modules:
        if attention is None:
            del module.forward
        else:
            module.forward = partial(_attention, module, attention)


def alibi_slopes(n_heads: int) -> Float[Tensor, " head"]:
    """Each head's slope: 2^(-8/n), 2^(-16/n) ... for n heads; between powers of two, those of the next lower power, then every
    second one of the next higher."""
    whole = 2 ** math.floor(math.log2(n_heads))
    exponents = [8 * (i + 1) / whole for i in range(whole)] + [4 * (2 * i + 1) / whole for i in range(n_heads - whole)]
    return 2 ** -torch.tensor(exponents)


def _attention(
    module: Any,
    attention: Callable[..., Any],
    hidden_states: Tensor,
    residual: Tensor,
    alibi: Tensor,
    attention_mask: Any,
    layer_past: Any = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """The forward pass of a BloomAttention module through ``attention``; without dropout, which eval mode disables."""
    q, k, v = module._reshape(module.query_key_value(hidden_states))
    if layer_past is not None:
        k, v = layer_past.update(k, v, module.layer_idx)
    slopes = alibi_slopes(module.num_heads).to(q.device)
    z, _ = attention(module, q, k, v, attention_mask, scaling=module.inv_norm_factor, slopes=slopes)
    return residual + module.dense(z.flatten(2)), None
