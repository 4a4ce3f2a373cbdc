"""The last attention rows of a text, and no others: what the rows that write an answer look at in a long context.

Every layer computes its attention as always, and the rows of the last queries alone are made beside it. A text whose first tokens were run
before goes on from their keys and values, so that many texts with a common beginning cost what they have of their own.
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
from interp.engine.attention.attention_observer import AttentionObserver
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
    """Logits at the last ``n`` positions of texts of one length; the attention rows there are handed to ``read``, block by block.

    With a ``cache``, which holds the first tokens of the texts, only the others are run, and added to it: the next call may go on from
    there. ``rows.queries`` and ``rows.keys`` count from the start of the text, ``rows.layer.call`` holds the layer's keys and values.
    Raises ValueError for more rows than tokens are run, for a model that hands no attention over and for more tokens than it takes.
    """
    before = cache.get_seq_length() if cache is not None else 0
    length, limit = tokens.shape[1], model.facts.max_length
    if not 0 < n <= length - before:
        raise ValueError(
            f"The last {n} rows of {length} tokens were asked for, {before} of which come from a cache: take 1 to {length - before}."
        )
    if limit is not None and length > limit:
        raise ValueError(f"The text has {length} tokens, more than the {limit} of {model.facts.name}'s context: cut it.")
    observer = AttentionObserver(model, [], TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool)), (), BLOCK)

    def answer(module: Any, call: AttentionInputs) -> Tensor:
        read_rows(observer.layer(module, call.last(n)), read, block=BLOCK)
        return attend(call)

    attentions = observer.hf.modules() if model.layout is None else model.layout.attentions
    hooks = {module: partial(answer, module) for module in (attentions if read is not None else ())}
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
    """Keys and values of a text, [1 kv_head pos d_head] in every layer, of which those of any first tokens are a part."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, model: Model, tokens: Int[Tensor, "1 pos"]) -> SharedPrefix:
        """One pass over the text."""
        cache: Any = _empty_cache()
        read_last_queries(model, tokens, 1, None, cache)
        return cls(tuple((layer.keys, layer.values) for layer in cache.layers))

    def first(self, n: int) -> DynamicCache:
        """A cache that holds the first ``n`` tokens; nothing is copied until it grows."""
        from transformers.cache_utils import DynamicLayer

        cache = _empty_cache()
        for keys, values in self.layers if n else ():
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys[:, :, :n], values[:, :, :n]
            cache.layers.append(layer)
        return cache


def verified_shared_prefix(
    model: Model, tokens: Int[Tensor, "1 pos"], proofs: Sequence[tuple[Int[Tensor, "1 _"], int]], n: int = 1
) -> SharedPrefix | None:
    """The beginning of texts that go on differently, if it can be shared: if each text of ``proofs`` gives the same last ``n`` logits when
    so many of its first tokens come from there as in a plain pass; else None.

    It cannot where angles or states depend on what follows (rotary embedding that is scaled by the length, recurrent layers) or where the
    model takes no such cache. Prove it on the shortest and the longest text.
    """
    eps = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)  # models compute norms and softmax in float32
    try:
        beginning = SharedPrefix.of(model, tokens)
        for whole, before in proofs:
            plain, continued = (read_last_queries(model, whole, n, None, cache) for cache in (None, beginning.first(before)))
            if not float((continued - plain).abs().max()) <= 512 * eps * float(plain.abs().max()):
                return None
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError):
        return None
    return beginning


def _empty_cache() -> DynamicCache:
    """A cache whose layers keep every token, those with a window as well."""
    from transformers import DynamicCache

    return DynamicCache()
