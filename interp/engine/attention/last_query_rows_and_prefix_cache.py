"""Attention rows of the last queries only: where the positions that produce an answer attend in a long context.

Every layer computes its attention as usual; the rows of the last queries are computed in addition. A text whose first tokens
have been run before continues from their keys and values, so that many texts with a common prefix cost only their own tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.attention.attention_interface import AttentionInputs, attend, attention_hooks
from interp.engine.attention.attention_observer import AttentionObserver, verify_attention
from interp.engine.attention.attention_rows import BLOCK, AttentionRows, read_rows
from interp.models.model import Model
from interp.tasks.token_batch import TokenBatch

if TYPE_CHECKING:
    from transformers import DynamicCache


def read_last_queries(
    model: Model,
    tokens: Int[Tensor, "batch pos"],
    n: int,
    read: Callable[[AttentionRows], None] | None,
    cache: DynamicCache | None = None,
) -> Float[Tensor, "batch n d_vocab"]:
    """Logits at the last ``n`` positions of texts of one length; their attention rows are passed to ``read``, block by block.

    With a ``cache`` of the first tokens, only the remaining ones are run, and added to it for the next call. ``rows.queries``
    and ``rows.keys`` count from the start of the text, ``rows.layer.call`` holds the layer's keys and values. Raises ValueError
    for more rows than tokens run, for a model whose attention cannot be observed, and for more tokens than its context.
    """
    before = cache.get_seq_length() if cache is not None else 0
    length, limit = tokens.shape[1], model.facts.max_length
    if not 0 < n <= length - before:
        raise ValueError(f"n={n} rows of {length} tokens, {before} of which come from a cache: give 1 to {length - before}.")
    if limit is not None and length > limit:
        raise ValueError(f"The text has {length} tokens, more than the {limit} of {model.facts.name}'s context: shorten it.")
    if read is not None:
        verify_attention(model)
    observer = AttentionObserver(model, [], TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool)))

    def answer(module: Any, call: AttentionInputs) -> Tensor:
        read_rows(observer.layer(module, call.last(n)), read, block=BLOCK)
        return attend(call)

    attentions = () if read is None else observer.hf.modules() if model.layout is None else model.layout.attentions
    hooks = {module: partial(answer, module) for module in attentions}
    inputs: dict[str, Any] = {"input_ids": tokens[:, before:], "use_cache": cache is not None, "logits_to_keep": n}
    if cache is not None:
        inputs["past_key_values"] = cache
    with model.lock, torch.inference_mode(), attention_hooks(observer.hf, hooks):
        logits = observer.hf(**inputs).logits.float()
    if read is not None:
        observer.check_complete()
    return logits


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """Keys and values of a text, [1 kv_head pos d_head] in every layer; its first tokens serve as a cache for other texts."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, model: Model, tokens: Int[Tensor, "1 pos"]) -> SharedPrefix:
        """The keys and values of one pass over the text."""
        from transformers import DynamicCache

        cache: Any = DynamicCache()  # its layers keep every token, including layers with a sliding window
        read_last_queries(model, tokens, 1, None, cache)
        return cls(tuple((layer.keys, layer.values) for layer in cache.layers))

    def first(self, n: int) -> DynamicCache:
        """A cache that holds the first ``n`` tokens; nothing is copied until it grows."""
        from transformers.cache_utils import DynamicCache, DynamicLayer

        cache = DynamicCache()
        for keys, values in self.layers if n else ():
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys[:, :, :n], values[:, :, :n]
            cache.layers.append(layer)
        return cache


def verified_shared_prefix(
    model: Model, tokens: Int[Tensor, "1 pos"], proofs: Sequence[tuple[Int[Tensor, "1 _"], int]], n: int = 1
) -> SharedPrefix | None:
    """The common prefix of several texts, or None where it cannot be shared: unless each text of ``proofs``, continued from so
    many of its tokens, gives the same last ``n`` logits as a plain pass.

    It cannot be shared where rotary angles or states depend on later tokens (rotary embedding scaled by the length, recurrent
    layers) or where the model supports no such cache. Verify it on the shortest and the longest text.
    """
    eps = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)  # models compute norms and softmax in float32
    try:
        beginning = SharedPrefix.of(model, tokens)
        for whole, before in proofs:
            plain, continued = (read_last_queries(model, whole, n, None, cache) for cache in (None, beginning.first(before)))
            if not float((continued - plain).abs().max()) <= 512 * eps * float(plain.abs().max()):
                return None
    except (AttributeError, IndexError, RuntimeError, TypeError):
        return None
    return beginning
