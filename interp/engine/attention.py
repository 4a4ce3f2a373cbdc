"""The attention function that the engine puts into plain Hugging Face models.

A registered function sees every head's query, key and value just before the softmax, after rotary embedding and query/key norms,
in every architecture that uses the interface. It computes ordinary attention unless a reader is installed for the module, and then
the reader decides: to look on, or to answer from another run's keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

NAME = "interp"


@dataclass(frozen=True)
class Call:
    """One call of an attention module.

    ``q`` [batch head query d_head]; ``k`` and ``v`` [batch kv_head key d_head]; ``mask`` is True where a query may see a key
    ([batch or 1, 1, query, key]) or None for plain causal attention; ``softcap`` bounds the scores as in Gemma 2.
    """

    q: Float[Tensor, "batch head query d_head"]
    k: Float[Tensor, "batch kv_head key d_head"]
    v: Float[Tensor, "batch kv_head key d_value"]
    mask: Bool[Tensor, "#batch 1 query key"] | None
    scale: float
    softcap: float | None

    def visible(self) -> Bool[Tensor, "some 1 query key"]:
        """Which keys each query may see, [batch or 1, 1, query, key]."""
        if self.mask is not None:
            return self.mask
        n_queries, n_keys = self.q.shape[2], self.k.shape[2]
        return torch.ones(n_queries, n_keys, dtype=torch.bool, device=self.q.device).tril(n_keys - n_queries)[None, None]

    def pattern(self, head: int, queries: slice = slice(None)) -> Float[Tensor, "batch some_queries key"]:
        """Attention weights of one head in float32, [batch query key], for all or some queries."""
        key = self.k[:, head * self.k.shape[1] // self.q.shape[1]]
        scores = self.q[:, head, queries].float() @ key.float().mT * self.scale
        return soften(scores, self.softcap).masked_fill(~self.visible()[:, 0, queries], -torch.inf).softmax(-1)

    def head_value(self, head: int) -> Float[Tensor, "batch key d_value"]:
        """Values that one query head reads, [batch key d_head]."""
        return self.v[:, head * self.v.shape[1] // self.q.shape[1]]


Reader = Callable[[Call], Tensor]
_READERS: dict[int, Reader] = {}


def attend(call: Call) -> Float[Tensor, "batch head query d_value"]:
    """Ordinary attention output, [batch head query d_head]."""
    if call.softcap is None:
        return F.scaled_dot_product_attention(
            call.q,
            call.k,
            call.v,
            attn_mask=call.mask,
            is_causal=call.mask is None and call.q.shape[2] > 1,
            scale=call.scale,
            enable_gqa=call.k.shape[1] != call.q.shape[1],
        )
    outputs = [call.pattern(head).to(call.v.dtype) @ call.head_value(head) for head in range(call.q.shape[1])]
    return torch.stack(outputs, 1)


def attend_after(
    call: Call,
    k_before: Float[Tensor, "prompts kv_head before d_head"],
    v_before: Float[Tensor, "prompts kv_head before d_head"],
    visible: Bool[Tensor, "some 1 n all"],
) -> Float[Tensor, "rows head n d_head"]:
    """Attention of the last positions of many changed runs that share the keys and values of the first positions.

    ``call`` holds ``n_variants * n_prompts`` rows, variants outermost, with queries of the last ``n`` positions. ``k_before`` and
    ``v_before`` [n_prompts kv_head before d_head] come from the clean run and are never copied per variant. ``visible`` is
    [n_prompts or 1, 1, n, all keys]. Returns [rows head n d_head].
    """
    rows, n_heads, n, d_head = call.q.shape
    n_prompts, n_kv, before = k_before.shape[:3]
    n_variants, group = rows // n_prompts, n_heads // n_kv

    def by_prompt(x: Tensor) -> Tensor:  # [rows kv ...] -> [prompts kv variants ...]
        return x.unflatten(0, (n_variants, n_prompts)).movedim(0, 2)

    q = call.q.unflatten(1, (n_kv, group))  # rows kv group n d
    own = q.flatten(2, 3) @ call.k.mT  # rows kv group*n n
    shared = by_prompt(q).reshape(n_prompts, n_kv, -1, d_head) @ k_before.mT
    shared = shared.view(n_prompts, n_kv, n_variants, group, n, before)
    scores = torch.cat([shared, by_prompt(own.unflatten(2, (group, n)))], -1).float() * call.scale
    weights = soften(scores, call.softcap).masked_fill(~visible[:, :, None, None], -torch.inf).softmax(-1).to(call.v.dtype)
    seen = weights[..., :before].reshape(n_prompts, n_kv, -1, before) @ v_before
    seen = seen.view(n_prompts, n_kv, n_variants, group, n, d_head).movedim(2, 0)
    new = weights[..., before:].movedim(2, 0).reshape(rows, n_kv, group * n, -1) @ call.v
    return (seen.reshape(rows, n_kv, group, n, d_head) + new.view(rows, n_kv, group, n, d_head)).flatten(1, 2)


def soften(scores: Tensor, softcap: float | None) -> Tensor:
    """The scores, bounded to (-softcap, softcap) where the architecture does so."""
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


@contextmanager
def reading(hf: nn.Module, readers: dict[nn.Module, Reader]) -> Iterator[None]:
    """Within the context ``hf`` uses the engine's attention, and each module in ``readers`` asks its reader for the output.

    A reader returns [batch head query d_head]. The model's own attention implementation is restored at the end. Contexts nest: an outer
    one without readers spares the inner ones the switch.
    """
    register()
    model: Any = hf
    before = model.config._attn_implementation
    keys = {id(module): reader for module, reader in readers.items()}
    if before != NAME:
        model.set_attn_implementation(NAME)
    _READERS.update(keys)
    try:
        yield
    finally:
        for key in keys:
            _READERS.pop(key, None)
        if before != NAME:
            model.set_attn_implementation(before)


def _function(module, query, key, value, attention_mask, scaling=None, dropout=0.0, is_causal=None, softcap=None, **extra):
    unknown = [name for name in ("s_aux", "position_bias", "head_mask") if extra.get(name) is not None]
    if unknown:
        raise NotImplementedError(
            f"{type(module).__name__} adds {', '.join(unknown)} to attention, which the engine does not know."
        )
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask > torch.finfo(attention_mask.dtype).min / 2
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = Call(query, key, value, attention_mask, scale, softcap)
    return _READERS.get(id(module), attend)(call).transpose(1, 2).contiguous(), None


def register() -> None:
    """Makes the function known to Hugging Face, with the mask function without which windows and padding would be lost."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _function)
    AttentionMaskInterface.register(NAME, sdpa_mask)
