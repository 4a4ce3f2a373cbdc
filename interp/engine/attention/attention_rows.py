"""Attention rows, a block of queries at a time: what metrics read, and where patterns are changed.

No pattern is stored. One block of complete rows of some heads is computed, changed by interventions, read by every metric, used
for the output, and freed; it fits the processor's cache, so that memory grows with the length of the text, not its square.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isqrt
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.engine.attention.attention_interface import UNSEEN, AttentionInputs
from interp.engine.attention.head_changes import HeadChanges, changes_in_layer
from interp.heads import Head
from interp.interventions import Intervention, Memory
from interp.models.model import Model
from interp.models.value_and_output_weights import output_rows
from interp.tasks.token_batch import TokenBatch

BLOCK = 1 << 19
"""Weights in a block: 2 MiB in float32, small enough for a core's cache and large enough for calls to cost little."""

QUERIES = 128
"""Causal queries in a block at most: their rows are as wide as the last one's, and more would waste weights on later keys."""


@dataclass(eq=False)
class AttentionLayer:
    """One layer's attention in one run: its inputs ``call``, the prompts, and the output projection."""

    index: int
    call: AttentionInputs
    prompts: TokenBatch
    output: Any = None  # the output projection, where it is known
    memory: dict[tuple[Intervention, Head], Memory] = field(
        default_factory=dict, repr=False
    )  # of interventions, from step to step

    @property
    def first_query(self) -> int:
        """Column of the first query in the batch: above 0 where earlier tokens come from a cache."""
        return self.call.first_key + self.call.k.shape[2] - self.call.q.shape[2]

    @cached_property
    def value_norms(self) -> Float[Tensor, "batch head key"]:
        """Norm of each head's output from each key at weight 1, |v W_O|; |v| where W_O is not known."""
        call, norms = self.call, []
        for head in range(call.q.shape[1]):
            value = call.head_value(head).float()
            if self.output is not None:
                value = value @ output_rows(self.output, head, value.shape[-1]).float()
            norms.append(value.norm(dim=-1))
        return torch.stack(norms, 1)


@dataclass(eq=False)
class QueryBlock:
    """Properties of a block of queries that all heads share: columns ``queries`` and ``keys`` of the batch, and which of these
    keys are visible to each query (``visibility``; None for all up to the query itself)."""

    layer: AttentionLayer
    queries: slice
    keys: slice
    visibility: Bool[Tensor, "some 1 query key"] | None
    cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # of metrics, computed once for all heads

    @property
    def prompts(self) -> TokenBatch:
        return self.layer.prompts

    @property
    def causal(self) -> bool:
        """Whether later keys are hidden."""
        return self.layer.call.causal

    @cached_property
    def token_mask(self) -> Bool[Tensor, "batch query"]:
        """Which queries are tokens, not padding."""
        return self.prompts.token_mask[:, self.queries]

    @cached_property
    def query_positions(self) -> Int[Tensor, "batch query"]:
        """Position of each query in its own text."""
        return self.prompts.positions[:, self.queries]

    @cached_property
    def key_positions(self) -> Int[Tensor, "batch key"]:
        """Position of each key in its own text; negative for padding before it."""
        return self.prompts.positions[:, self.keys]

    @cached_property
    def query_columns(self) -> Float[Tensor, " query"]:
        """Columns of the queries in the batch."""
        return torch.arange(self.queries.start, self.queries.stop, device=self.layer.call.q.device).float()

    @cached_property
    def key_columns(self) -> Float[Tensor, " key"]:
        """Columns of the keys in the batch."""
        return torch.arange(self.keys.start, self.keys.stop, device=self.layer.call.q.device).float()

    @cached_property
    def lag(self) -> Float[Tensor, "query key"]:
        """Number of tokens from each key to each query; negative for later keys."""
        return self.query_columns[:, None] - self.key_columns

    @cached_property
    def gaps(self) -> tuple[Float[Tensor, " before"], Float[Tensor, "query among"], Float[Tensor, " after"]]:
        """How far the keys are: those before and after all of these queries from the nearest one, those among them from each."""
        n_keys = len(self.key_columns)
        n_before, n_after = self.queries.start - self.keys.start, self.keys.stop - self.queries.stop
        sizes = min(max(n_before, 0), n_keys), min(max(n_after, 0), n_keys)
        before, among, after = self.key_columns.split([sizes[0], n_keys - sum(sizes), sizes[1]])
        return self.queries.start - before, (self.query_columns[:, None] - among).abs(), after - (self.queries.stop - 1)

    @cached_property
    def visible(self) -> Bool[Tensor, "some 1 query key"]:
        """Which keys are visible to each query."""
        return (self.lag >= 0)[None, None] if self.visibility is None else self.visibility

    @cached_property
    def future(self) -> Float[Tensor, "query query"]:
        """Scores to add to the last keys of a causal block: UNSEEN for keys after the query, else 0."""
        return self.query_columns.new_full((len(self.query_columns),) * 2, UNSEEN).triu(1)

    @cached_property
    def sees_all(self) -> bool:
        """Whether every key of the span is visible to every query."""
        return bool(self.visible.all())

    @cached_property
    def n_visible(self) -> Int[Tensor, "some query"]:
        """Number of keys visible to each query."""
        return self.query_columns.long()[None] + 1 if self.visibility is None else self.visible.sum(-1)[:, 0]

    @cached_property
    def n_seeing(self) -> Int[Tensor, "some key"]:
        """Number of queries, without padding, to which each key is visible."""
        if self.prompts.padded:
            return (self.visible[:, 0] & self.token_mask[:, :, None]).sum(1)
        if self.visibility is None:
            return (self.queries.stop - self.key_columns.clamp(min=self.queries.start)).long()[None]
        return self.visible[:, 0].sum(1)

    def shared(self, compute: Callable[..., Any], *arguments: Hashable) -> Any:
        """``compute(query_block, *arguments)``, once for all heads; ``compute`` is defined at the top level of a file."""
        if (compute, arguments) not in self.cache:
            self.cache[compute, arguments] = compute(self, *arguments)
        return self.cache[compute, arguments]

    def tokens(self, where: slice) -> Int[Tensor, "batch some"]:
        """Token ids at some columns of the batch."""
        return self.prompts.tokens[:, where]


@dataclass(eq=False)
class AttentionRows:
    """A block of complete attention rows of one layer, of query heads ``heads``.

    ``pattern`` is in float32; keys outside the span have weight 0. Rows of padding are 0. Properties are computed on first use
    and shared by all metrics; those of the ``query_block`` are shared by all heads and are also attributes of the rows. ``variant`` is the
    pattern under interventions that the pass is compared with, without their taking effect. ``sink_share`` is what learned sinks hold of
    each row before interventions change the pattern; None where none do, and in models without learned sinks.
    """

    query_block: QueryBlock
    heads: slice
    pattern: Float[Tensor, "batch head query key"]
    _changed: bool = False  # by an intervention, which may return negative weights
    variant: Float[Tensor, "batch head query key"] | None = None
    sink_share: Float[Tensor, "batch head query 1"] | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.query_block, name)

    @cached_property
    def mass(self) -> Float[Tensor, "batch head query"]:
        """Sum of each row: 1, but 0 for padding and less than 1 beside a learned sink."""
        before, among, after = self._masses
        return before + among + after

    @cached_property
    def _parts(self) -> tuple[Tensor, ...]:
        """The pattern before, among and after the block's queries."""
        before, among, after = self.gaps
        return self.pattern.split([len(before), among.shape[1], len(after)], -1)

    @cached_property
    def _masses(self) -> tuple[Tensor, ...]:
        return tuple(part.sum(-1) for part in self._parts)

    @cached_property
    def entropy(self) -> Float[Tensor, "batch head query"]:
        """Shannon entropy of each row in nats; NaN where an intervention made a weight negative."""
        if self._changed:
            return -torch.xlogy(self.pattern, self.pattern).sum(-1)
        least = torch.finfo(self.pattern.dtype).tiny  # the logarithm of 0 is slow and infinite
        by_head = [weight.clamp(min=least).log_().mul_(weight).sum(-1) for weight in self.pattern.unbind(1)]
        return 0 - torch.stack(by_head, 1)  # the negative of 0 would be -0

    @cached_property
    def distance(self) -> Float[Tensor, "batch head query"]:
        """Mean |query - key| in tokens, weighted by attention.

        A sum of positive terms (keys before, among and after the block's queries): nothing cancels, distant keys cost little.
        """
        far_before, gaps, far_after = self.gaps
        before, among, after = self._parts
        steps = self.query_columns - self.queries.start
        total = (among * gaps).sum(-1) + before @ far_before + steps * self._masses[0]
        return total if self.causal else total + after @ far_after + steps.flip(0) * self._masses[2]

    def output(self, pattern: Tensor) -> Float[Tensor, "batch head query d_value"]:
        """The heads' output with this pattern, which has the shape of their own."""
        call = self.layer.call
        keys = slice(self.keys.start - call.first_key, self.keys.stop - call.first_key)
        return _block_output(call, pattern, self.heads, keys).float()

    def weighted_mean(self, values: Tensor) -> Float[Tensor, "batch head query"]:
        """Mean of ``values`` of the keys ([batch key] or [batch head key]), weighted by attention."""
        column = values.to(self.pattern)[..., None]
        return (self.pattern @ (column[:, None] if values.dim() == 2 else column))[..., 0]


def check_heads(model: Model, interventions: Sequence[Intervention]) -> None:
    """Raises LookupError when an intervention names a head that the model does not have."""
    for head in (head for intervention in interventions for head in intervention.heads):
        model.facts.check_head(head)


def read_rows(
    layer: AttentionLayer,
    read: Callable[[AttentionRows], None] | None,
    interventions: Sequence[Intervention] = (),
    example_ids: Int[Tensor, " batch"] | None = None,
    *,
    block: int,
    all_heads: bool = False,
    head_index: int | None = None,
    compare: bool = False,
) -> Float[Tensor, "batch some_heads query d_value"]:
    """The attention output of a call; every block of rows is passed to ``read``.

    ``block`` is the largest number of weights in a block, ``all_heads`` puts all heads in one, ``head_index`` computes the rows
    of one head only. ``interventions`` (other layers are skipped) act on the blocks; ``example_ids`` are the ids they use. With
    ``compare`` the output stays unchanged, and rows hold the changed patterns as their ``variant``.
    """
    if head_index is None:  # the copy would cost more than one head's products
        layer = replace(layer, call=layer.call.laid_out_for_products())
    call = layer.call
    z = call.v.new_empty((call.q.shape[0], call.q.shape[1] if head_index is None else 1, call.q.shape[2], call.v.shape[-1]))
    index = torch.arange(len(call.q), device=call.q.device) if example_ids is None else example_ids
    changes = HeadChanges(layer, changes_in_layer(interventions, layer.index), index, block)
    for queries, keys, visibility, groups in blocks(call, block, all_heads, head_index):
        columns = slice(layer.first_query + queries.start, layer.first_query + queries.stop)
        query_block = QueryBlock(layer, columns, slice(call.first_key + keys.start, call.first_key + keys.stop), visibility)
        for heads in groups:
            found = _rows(query_block, heads, queries, keys, changes)
            if compare:
                unchanged = _rows(query_block, heads, queries, keys, HeadChanges(layer, [], index, block))
                unchanged.variant, found = found.pattern, unchanged
            moved = _block_output(call, found.pattern, heads, keys)
            for head, own_call in () if compare else changes.own_inputs(heads):
                moved[:, head - heads.start] = (
                    found.pattern[:, head - heads.start].to(own_call.v.dtype) @ own_call.v[:, 0, keys]
                )
            for change in () if compare else changes.at("z", heads):
                changes.apply(found, moved, *change)
            z[:, heads if head_index is None else slice(0, 1), queries] = moved
            if read is not None:
                read(found)
    return z


def blocks(
    call: AttentionInputs, block: int, all_heads: bool = False, head_index: int | None = None
) -> Iterator[tuple[slice, slice, Tensor | None, list[slice]]]:
    """The blocks of a call: queries, the span of their visible keys, which of these are visible to each query (None for plain
    causal rows), and groups of heads whose rows are computed at once."""
    (batch, n_heads, n_queries, _), n_keys = call.q.shape, call.k.shape[2]
    heads, least = range(n_heads), n_heads if all_heads else call.group_size
    if head_index is not None:
        heads, least = range(head_index, head_index + 1), 1
    first, plain = 0, call.mask is None and call.causal
    while first < n_queries:
        n = _n_queries(block // (batch * least), n_keys - n_queries + first) if plain else block // (batch * least * n_keys)
        queries = slice(first, min(first + max(1, n), n_queries))
        first, visibility, keys = queries.stop, None, slice(0, n_keys - n_queries + queries.stop)
        if not plain:
            visibility = call.visible(queries)
            some = visibility.flatten(0, 2).any(0).nonzero()
            keys = slice(int(some.min()), int(some.max()) + 1) if len(some) else slice(0, 1)
            visibility = visibility[..., keys]
        weights = batch * (queries.stop - queries.start) * (keys.stop - keys.start)
        n_at_once = max(least, block // weights // least * least)
        yield queries, keys, visibility, [slice(h, min(h + n_at_once, heads.stop)) for h in heads[::n_at_once]]


def _n_queries(weights: int, before: int) -> int:
    """The number of causal queries behind ``before`` keys whose rows, each as wide as the last, hold at most ``weights``."""
    return min(QUERIES, (isqrt(before**2 + 4 * weights) - before) // 2)


def _rows(query_block: QueryBlock, heads: slice, queries: slice, keys: slice, changes: HeadChanges) -> AttentionRows:
    scores = query_block.layer.call.scores(heads, queries, keys)
    for head, own_call in changes.own_inputs(heads):
        scores[:, head - heads.start] = own_call.scores(slice(0, 1), queries, keys)[:, 0]
    if query_block.visibility is None:  # only the last n keys can come after one of these queries
        n = queries.stop - queries.start
        scores[..., -n:].add_(query_block.future)
    elif not query_block.sees_all:
        scores.masked_fill_(~query_block.visibility, UNSEEN)
    found = AttentionRows(query_block, heads, scores)
    for change in changes.at("scores", heads):
        changes.apply(found, scores, *change)
    sinks = query_block.layer.call.sinks
    found.pattern = _softmax(scores, None if sinks is None else sinks[heads])
    changed = changes.at("pattern", heads)
    if changed and sinks is not None:
        found.sink_share = 1 - found.pattern.sum(-1, keepdim=True)
    for change in changed:
        changes.apply(found, found.pattern, *change)
        found._changed = True
    if query_block.prompts.padded:
        found.pattern.mul_(found.token_mask[:, None, :, None])
    return found


def _softmax(scores: Tensor, sinks: Tensor | None) -> Float[Tensor, "batch head query key"]:
    """The softmax of scores, on a CPU in their memory, beside the sink logits [head] if there are any.

    Not by exp, which in torch is 30 times slower where it underflows to 0, as on hidden keys.
    """
    here = scores if scores.device.type == "cpu" else None
    if sinks is None:
        return torch.softmax(scores, -1, out=here)
    largest = scores.amax(-1, keepdim=True)
    pattern = torch.softmax(scores, -1, out=here)
    log_sum = largest - pattern.amax(-1, keepdim=True).log()
    return pattern.mul_((log_sum - sinks[:, None, None].float()).sigmoid())


def _block_output(
    call: AttentionInputs, pattern: Tensor, heads: slice, keys: slice
) -> Float[Tensor, "batch head query d_value"]:
    group = call.group_size
    value = call.v[:, heads.start // group : (heads.stop - 1) // group + 1, keys]
    weights = pattern.to(value.dtype)
    stacked = weights.reshape(len(weights), value.shape[1], -1, weights.shape[-1]) @ value
    return stacked.view(*weights.shape[:3], -1)
