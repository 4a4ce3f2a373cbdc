"""What interventions change in one layer: queries, keys and values before the rows are computed, then scores, patterns and z by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.attention.attention_interface import UNSEEN, AttentionInputs, beside_sink
from interp.heads import Head
from interp.interventions import HeadInputs, Intervention, InterventionContext

if TYPE_CHECKING:
    from interp.engine.attention.attention_rows import AttentionLayer, AttentionRows


def changes_in_layer(interventions: Sequence[Intervention], layer: int) -> list[tuple[Intervention, Head]]:
    """The heads of a layer that interventions change, with what changes them."""
    return [(i, head) for i in interventions for head in i.heads if head.layer == layer]


class HeadChanges:
    """The changes of one call of a layer's attention, prepared: ``block`` is the largest number of weights that are read at once."""

    def __init__(
        self, layer: AttentionLayer, changes: list[tuple[Intervention, Head]], example_ids: Int[Tensor, " batch"], block: int
    ) -> None:
        self.layer, self.changes, self.example_ids, self.block = layer, changes, example_ids, block
        self._own: dict[int, AttentionInputs] = {}
        self._inputs: dict[int, HeadInputs] = {}
        for intervention, head in changes:
            if intervention.site in ("q", "k", "v"):
                self._change_input(intervention, head)
        for intervention, head in changes:
            if intervention.prepare is not None:
                intervention.prepare(self.inputs(head.head), layer.memory.setdefault((intervention, head), {}))

    def at(self, site: str, heads: slice) -> list[tuple[Intervention, list[Head]]]:
        """The changes of some heads at one site; heads that are changed at once are together."""
        found: list[tuple[Intervention, list[Head]]] = []
        for intervention, head in self.changes:
            if intervention.site == site and heads.start <= head.head < heads.stop:
                if intervention.alike and found and found[-1][0] is intervention:
                    found[-1][1].append(head)
                else:
                    found.append((intervention, [head]))
        return found

    def own_inputs(self, heads: slice) -> list[tuple[int, AttentionInputs]]:
        """The heads whose queries, keys or values are changed, with inputs of their own."""
        return [(head, own) for head, own in self._own.items() if heads.start <= head < heads.stop]

    def inputs(self, head: int) -> HeadInputs:
        """What a head reads."""
        if head not in self._inputs:
            own, prompts = self._own.get(head) or _inputs_of_one_head(self.layer.call, head), self.layer.prompts
            first, keys = self.layer.first_query, slice(own.first_key, own.first_key + own.k.shape[2])
            queries = slice(first, first + own.q.shape[2])
            self._inputs[head] = HeadInputs(
                own.q[:, 0].float(),
                own.k[:, 0].float(),
                own.v[:, 0].float(),
                prompts.positions[:, queries],
                prompts.positions[:, keys],
                prompts.token_mask[:, keys],
                lambda: _unchanged_rows(own, prompts.token_mask[:, queries], self.block),
                lambda some, of: _visible_scores(own, some, of),
                lambda: self.layer.call.q.float().norm(dim=-1),
                own.scale,
                _extra(own),
            )
        return self._inputs[head]

    def apply(self, found: AttentionRows, x: Tensor, intervention: Intervention, changed: list[Head]) -> None:
        """Changes ``x`` [batch head query ...], a block of scores, weights or z, in these heads, at the positions of the intervention."""
        head, n = changed[0], len(changed)
        places = found.query_positions, found.visible[:, 0], found.key_positions
        rows = (t if len(t) == 1 else t.repeat_interleave(n, 0) for t in places)
        context = InterventionContext(head, self.example_ids.repeat_interleave(n), *rows)
        own = [head.head - found.heads.start for head in changed]
        where = slice(own[0], own[0] + n) if own == list(range(own[0], own[0] + n)) else own
        if found.sink_share is not None:
            context = context._replace(sink_share=found.sink_share[:, where].flatten(0, 1))
        if intervention.needs_engine:
            layer = self.layer
            queries = slice(found.queries.start - layer.first_query, found.queries.stop - layer.first_query)
            keys = slice(found.keys.start - layer.call.first_key, found.keys.stop - layer.call.first_key)
            memory = layer.memory.setdefault((intervention, head), {})
            context = context._replace(inputs=self.inputs(head.head), query_slice=queries, key_slice=keys, memory=memory)
        old = x[:, where]
        new = intervention.apply(old.flatten(0, 1), context).reshape(old.shape)
        if intervention.site == "scores":
            new = new.masked_fill(~found.visible, UNSEEN)
        new = self._where(intervention, found.queries, new, old)
        if new.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():  # what was returned is a view of what was given
            new = new.clone()
        x[:, where] = new

    def _change_input(self, intervention: Intervention, head: Head) -> None:
        """Queries, keys or values of one head after the intervention."""
        own = self._own.get(head.head) or _inputs_of_one_head(self.layer.call, head.head)
        old: Tensor = getattr(own, intervention.site)[:, 0]
        start = self.layer.first_query if intervention.site == "q" else own.first_key
        columns = slice(start, start + old.shape[1])
        new = intervention.apply(old, InterventionContext(head, self.example_ids, self.layer.prompts.positions[:, columns]))
        if new is not old:  # a change of strength 0 leaves the bits as they are
            changed = self._where(intervention, columns, new[:, None], old[:, None])
            self._own[head.head] = replace(own, **{intervention.site: changed})

    def _where(self, intervention: Intervention, columns: slice, new: Tensor, old: Tensor) -> Tensor:
        """``new`` at the positions of the intervention, else ``old``; both [batch head columns ...]."""
        if intervention.positions == "all":
            return new
        here = self.layer.prompts.position_mask(intervention.positions)[:, columns]
        return torch.where(here[:, None, :, None], new, old)


def _extra(call: AttentionInputs) -> str:
    """What a model does to scores beyond ``q k^T * scale``; empty where that is all."""
    if call.softcap is not None:
        return f"bounds its scores to {call.softcap:g}"
    if call.slopes is not None:
        return "adds a bias by distance to its scores (ALiBi)"
    return "has a learned sink beside every row" if call.sinks is not None else ""


def _inputs_of_one_head(call: AttentionInputs, head: int) -> AttentionInputs:
    """The inputs of one query head, with its key/value head."""
    own = call.slopes if call.slopes is None else call.slopes[head : head + 1]
    sink = call.sinks if call.sinks is None else call.sinks[head : head + 1]
    k, v = (x[:, head // call.group_size, None] for x in (call.k, call.v))
    return replace(call, q=call.q[:, head, None], k=k, v=v, slopes=own, sinks=sink)


def _unchanged_rows(
    own: AttentionInputs, tokens: Tensor, block: int
) -> Iterator[tuple[slice, slice, Float[Tensor, "batch some_queries some_keys"]]]:
    """The pattern of one head, block by block."""
    (batch, _, n_queries, _), n_keys = own.q.shape, own.k.shape[2]
    step = max(1, block // (batch * n_keys))
    for first in range(0, n_queries, step):
        queries = slice(first, min(first + step, n_queries))
        keys = slice(0, n_keys - n_queries + queries.stop if own.mask is None and own.causal else n_keys)
        rows = beside_sink(_visible_scores(own, queries, keys), own.sinks)
        yield queries, keys, rows.masked_fill(~tokens[:, queries, None], 0)


def _visible_scores(own: AttentionInputs, queries: slice, keys: slice) -> Float[Tensor, "batch some_queries some_keys"]:
    """Scores of one head, -inf at keys that a query does not see."""
    return own.scores(slice(0, 1), queries, keys)[:, 0].masked_fill(~own.visible(queries)[:, 0, :, keys], -torch.inf)
