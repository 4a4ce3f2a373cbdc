"""The attention function that the engine installs in plain Hugging Face models.

A registered function receives every head's query, key and value just before the softmax, after rotary embedding and query/key
norms, in every architecture that uses the interface. It computes ordinary attention unless a hook is installed for the module;
the hook then returns the output, whether it only reads the inputs or uses the keys and values of another run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.engine.attention.bloom import switch
from interp.errors import FastPathUnavailable, first_line

NAME = "interp"

TABLE = 1 << 24
"""Entries of a mask in memory at once."""

UNSEEN = -1e30
"""Score of a key that is not visible to a query: finite, so that weight times score is 0."""

QUERIES = 512
"""Causal queries behind a cache that are computed at once: each of them costs as many keys as the last."""


@dataclass(frozen=True)
class Mask:
    """Which keys are visible to a query, computed by blocks of queries: no query x key table of a long text is stored.

    ``rule(batch, head, query, key)`` is transformers' own mask function of absolute positions; the first query is at position
    ``first_query``, the first of ``n_keys`` keys at ``first_key``; ``padding`` [batch all_keys] is False at padding.
    """

    rule: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    n_queries: int
    n_keys: int
    first_query: int
    first_key: int
    padding: Bool[Tensor, "batch all"] | None

    def block(self, queries: slice, device: torch.device) -> Bool[Tensor, "some 1 some_queries key"]:
        """The keys that these queries may see."""
        batch = torch.arange(1 if self.padding is None else len(self.padding), device=device)[:, None, None, None]
        query = torch.arange(self.n_queries, device=device)[queries][:, None] + self.first_query
        key = torch.arange(self.n_keys, device=device) + self.first_key
        seen = self.rule(batch, batch[:1], query, key).expand(len(batch), 1, len(query), len(key))
        if self.padding is None:
            return seen
        kept = self.padding[:, self.first_key : self.first_key + self.n_keys]
        return seen & F.pad(kept, (0, self.n_keys - kept.shape[1]))[:, None, None]


@dataclass(frozen=True)
class AttentionInputs:
    """One call of an attention module.

    ``mask`` says where a query may see a key, as a table (True = visible) or a ``Mask``; None means itself and all earlier keys
    or, where not ``causal``, all keys. Scores are ``q k^T * scale``, bounded by ``softcap`` as in Gemma 2, plus ``slopes[head] *
    (key - query position)`` (ALiBi). ``sinks`` are learned logits that take part in the softmax of every row and have no value
    (gpt-oss): the weights of a row sum to less than 1.
    """

    q: Float[Tensor, "batch head query d_head"]
    k: Float[Tensor, "batch kv_head key d_head"]
    v: Float[Tensor, "batch kv_head key d_value"]
    mask: Bool[Tensor, "#batch 1 query key"] | Mask | None
    scale: float
    softcap: float | None
    causal: bool = True
    slopes: Float[Tensor, " head"] | None = None
    sinks: Float[Tensor, " head"] | None = None

    @property
    def first_key(self) -> int:
        """Absolute position of the first key: above 0 where a cache has dropped earlier keys."""
        return self.mask.first_key if isinstance(self.mask, Mask) else 0

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head."""
        return self.q.shape[1] // self.k.shape[1]

    def visible(self, queries: slice = slice(None)) -> Bool[Tensor, "some 1 some_queries key"]:
        """Which keys each query may see, for all or some queries."""
        if isinstance(self.mask, Mask):
            return self.mask.block(queries, self.q.device)
        if self.mask is not None:
            return self.mask[:, :, queries]
        key = torch.arange(self.k.shape[2], device=self.q.device)
        query = torch.arange(self.q.shape[2], device=self.q.device)[queries, None] + self.k.shape[2] - self.q.shape[2]
        return (key <= query if self.causal else torch.ones_like(key <= query))[None, None]

    def last(self, n: int) -> "AttentionInputs":
        """The same inputs with only the last ``n`` queries."""
        mask, skipped = self.mask, self.q.shape[2] - n
        if isinstance(mask, Mask):
            mask = replace(mask, n_queries=n, first_query=mask.first_query + skipped)
        elif mask is not None:
            mask = mask[:, :, skipped:]
        return replace(self, q=self.q[:, :, skipped:], mask=mask)

    def laid_out_for_products(self) -> "AttentionInputs":
        """The same inputs with keys and values in the order in memory that is fastest for products with many queries."""
        if self.q.shape[2] < self.q.shape[3]:  # a copy costs as much as the products of a few queries
            return self
        return replace(self, k=self.k.mT.contiguous().mT, v=self.v.contiguous())

    def scores(
        self, heads: slice, queries: slice, keys: slice = slice(None)
    ) -> Float[Tensor, "batch some_heads some_queries some_keys"]:
        """Scores before the softmax, not masked, in float32; ``heads`` are all heads of some key/value heads, or one head."""
        group = self.group_size
        own = slice(heads.start // group, (heads.stop - 1) // group + 1)
        q = self.q[:, heads, queries].float() * self.scale
        k = self.k[:, own, keys].float()
        stacked = q.reshape(len(q), k.shape[1], -1, q.shape[-1]) @ k.mT
        scores = apply_softcap(stacked.view(*q.shape[:3], -1), self.softcap)
        if self.slopes is None:
            return scores
        place = torch.arange(self.k.shape[2], device=k.device)
        behind = place[keys] - place[-self.q.shape[2] :][queries, None]
        return scores.add_(self.slopes[heads, None, None].float() * behind)

    def pattern(self, head: int, queries: slice = slice(None)) -> Float[Tensor, "batch some_queries key"]:
        """Attention weights of one head in float32, for all or some queries."""
        scores = self.scores(slice(head, head + 1), queries)[:, 0]
        scores = scores.masked_fill(~self.visible(queries)[:, 0], -torch.inf)
        return beside_sink(scores, None if self.sinks is None else self.sinks[head])

    def head_value(self, head: int) -> Float[Tensor, "batch key d_value"]:
        """Values of the key/value head that a query head reads."""
        return self.v[:, head // self.group_size]


@contextmanager
def refusing_crashes(refused: str) -> Iterator[None]:
    """Raises FastPathUnavailable, beginning with ``refused``, where the model's own code fails with the engine's attention or masks."""
    try:
        yield
    except (AttributeError, TypeError, KeyError) as error:
        raise FastPathUnavailable(f"{refused}: its own code fails there ({first_line(error)}).") from error


class LeaveModule(Exception):
    """Raised by attention hooks to leave a module early, with what they have ``found``."""

    def __init__(self, found: Any) -> None:
        self.found = found


AttentionHook = Callable[[AttentionInputs], Tensor]
_READERS: dict[int, AttentionHook] = {}


def attend(call: AttentionInputs) -> Float[Tensor, "batch head query d_value"]:
    """Ordinary attention output."""
    if call.softcap is not None or call.slopes is not None or call.sinks is not None:
        outputs = [call.pattern(head).to(call.v.dtype) @ call.head_value(head) for head in range(call.q.shape[1])]
        return torch.stack(outputs, 1)
    n_queries, n_keys = call.q.shape[2], call.k.shape[2]
    if call.mask is None and (not call.causal or n_queries in (1, n_keys)):
        return scaled_dot_product(call, call.q, None, call.causal and n_queries > 1)
    # torch's causal mask is aligned to the first key, not to that of the first query
    step = max(1, min(TABLE // n_keys, QUERIES if call.mask is None else n_queries))
    return torch.cat([_rows_output(call, slice(i, min(i + step, n_queries))) for i in range(0, n_queries, step)], 2)


def _rows_output(call: AttentionInputs, queries: slice) -> Float[Tensor, "batch head some_queries d_value"]:
    """The output of some queries; of plain causal ones from the keys up to the last that any of them sees."""
    visible, end = call.visible(queries), call.k.shape[2]
    if call.mask is None and call.causal:
        end -= call.q.shape[2] - queries.stop
    seen = replace(call, k=call.k[:, :, :end], v=call.v[:, :, :end])
    return scaled_dot_product(seen, call.q[:, :, queries], visible[..., :end], False)


def scaled_dot_product(call: AttentionInputs, q: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    grouped = call.group_size > 1
    return F.scaled_dot_product_attention(q, call.k, call.v, mask, is_causal=causal, scale=call.scale, enable_gqa=grouped)


def beside_sink(scores: Float[Tensor, "*scores"], sink: Tensor | None, key_dim: int = -1) -> Float[Tensor, "*scores"]:
    """The softmax of scores over the keys and, where there is one, a sink logit that can be broadcast to one for each row."""
    weights = scores.softmax(key_dim)
    return weights if sink is None else weights * (scores.logsumexp(key_dim, keepdim=True) - sink).sigmoid()


def upcast(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 where it is."""
    return x if x.dtype == torch.float64 else x.float()


def apply_softcap(scores: Tensor, softcap: float | None) -> Tensor:
    """The scores, bounded to (-softcap, softcap) where the architecture has a softcap."""
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


@contextmanager
def attention_hooks(hf: nn.Module, hooks: dict[nn.Module, AttentionHook]) -> Iterator[None]:
    """Within the context ``hf`` uses the engine's attention, and the modules in ``hooks`` their hook's [batch head query d_head].

    The model's own attention implementation is restored at the end. Contexts nest: the innermost hook of a module is called, and
    an outer context without hooks saves the inner ones the switch. Raises FastPathUnavailable for hooks that are never called.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _function)
    AttentionMaskInterface.register(NAME, _mask)
    model: Any = hf
    before = model.config._attn_implementation
    keys = {id(module): reader for module, reader in hooks.items()}
    outer = {key: _READERS[key] for key in keys if key in _READERS}
    if before != NAME:
        switch(model, NAME, hooks, _function)
    try:
        if hooks and model.config._attn_implementation != NAME:
            reason = "does not compute attention through transformers' attention interface: its patterns cannot be observed or changed"
            raise FastPathUnavailable(f"{type(hf).__name__} {reason}")
        _READERS.update(keys)
        yield
    finally:
        for key in keys:
            _READERS.pop(key, None)
        _READERS.update(outer)
        if before != NAME:
            switch(model, before, hooks, None)


PLACES = ("position_ids", "cache_position", "logits_to_keep", "encoder_hidden_states", "encoder_attention_mask")
"""Tensors that transformers passes to attention functions, where they have no effect."""


def _function(
    module,
    query,
    key,
    value,
    attention_mask,
    scaling=None,
    dropout=0.0,
    is_causal=None,
    softcap=None,
    slopes=None,
    s_aux=None,
    **extra,
):
    unknown = [name for name, given in extra.items() if isinstance(given, Tensor) and name not in PLACES]
    if unknown:
        raise FastPathUnavailable(
            f"{type(module).__name__} passes {', '.join(unknown)} to attention, which the engine does not support."
        )
    if isinstance(attention_mask, Tensor) and attention_mask.dtype != torch.bool:
        visible = attention_mask > torch.finfo(attention_mask.dtype).min / 2
        if attention_mask.masked_fill(~visible, 0).any():
            raise FastPathUnavailable(f"{type(module).__name__} adds a bias to scores, which the engine does not support.")
        attention_mask = visible
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    call = AttentionInputs(query, key, value, attention_mask, scale, softcap, bool(causal), slopes, s_aux)
    return _READERS.get(id(module), attend)(call).transpose(1, 2).contiguous(), None


def _mask(
    batch_size, q_length, kv_length, q_offset=0, kv_offset=0, mask_function=None, attention_mask=None, use_vmap=False, **extra
):
    """The mask passed to transformers' models: None for plain causal and for unmasked attention, else the rule itself."""
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function, sdpa_mask

    rule: Any = causal_mask_function if mask_function is None else mask_function
    if use_vmap:  # a rule that does not take tensors of positions
        extra |= {"q_offset": q_offset, "kv_offset": kv_offset, "mask_function": rule, "attention_mask": attention_mask}
        return sdpa_mask(batch_size, q_length, kv_length, use_vmap=True, **extra)
    padding = None if attention_mask is None or bool(attention_mask.all()) else attention_mask.bool()
    plain = rule is bidirectional_mask_function or (rule is causal_mask_function and q_offset + q_length == kv_length)
    if plain and padding is None and not kv_offset:
        return None
    return Mask(rule, q_length, kv_length, int(q_offset), int(kv_offset), padding)
