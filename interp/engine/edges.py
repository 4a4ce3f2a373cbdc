"""Edges of a model's graph, corrupted: one at a time, or any set of them at once.

A corrupted edge shows its reader what the writer wrote on the corrupted prompt; what comes after the reader is computed anew, all else
stays. One edge changes one head's z, one MLP's output or the last residual, from which the run is continued (``single_edges``): all
edges into a layer share one pass for their queries, keys and values. A set of edges needs a run of its own in which every reader
has its own input (``edge_sets``); a set of one edge gives the same number, by the other road.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.attention import Call
from interp.engine.restart import climb
from interp.engine.stream import Stream
from interp.engine.sweeps import own_modules
from interp.graph import PARTS, Edge, Graph, Node
from interp.models.model import Model


def graph_of(model: Model) -> Graph:
    """The graph of a model. Raises ValueError for an encoder."""
    facts = model.facts
    facts.check_causal("A circuit")
    return Graph(facts.n_layers, facts.n_heads, facts.d_mlp > 0, facts.parallel)


def single_edges(stream: Stream, edges: Sequence[Edge]) -> Float[Tensor, "n_edges batch d_model"]:
    """The residual that predicts the answer when one edge alone is corrupted, for each edge."""
    graph, together = graph_of(stream.model), stream.together
    places = [_place(graph, edge) for edge in edges]
    order = sorted(range(len(edges)), key=lambda i: places[i])
    first_at_end = bisect_left(order, (graph.n_layers - 1, 1), key=lambda i: places[i][:2])
    steps = ((order[:first_at_end], together), (order[first_at_end:], together * len(PARTS) * graph.n_heads))
    made = cache(lambda layer: stream.qkv(layer, stream.clean.residual[layer]))
    found: list[Tensor] = []
    with own_modules(stream.model):
        for some, step in steps:
            for first in range(0, len(some), step):
                part = [edges[i] for i in some[first : first + step]]
                found += _continued(stream, graph, part, made).unbind(0)
    return torch.stack([found[at] for at in torch.tensor(order).argsort().tolist()])


def _place(graph: Graph, edge: Edge) -> tuple[int, int, int]:
    """Where the changed run leaves the clean one: at a block's entrance (after an MLP), or in its attention; then by writer. From the last
    attention on, only the last position matters."""
    reader, writer = edge.reader, graph.number[edge.writer]
    if reader.kind == "logits":
        return (graph.n_layers, 1, writer)
    return (reader.layer + 1, 0, writer) if reader.kind == "mlp" else (reader.layer, 1, writer)


def _continued(
    stream: Stream, graph: Graph, edges: Sequence[Edge], made: Callable[[int], Call]
) -> Float[Tensor, "n_edges batch d_model"]:
    """As ``single_edges``, for edges in the order of ``_place``; ``made`` are the clean queries, keys and values of a layer."""
    clean, n_layers = stream.clean, graph.n_layers
    places = {p: list(group) for p, group in groupby(edges, key=lambda edge: _place(graph, edge)[:2])}

    def added(here: Sequence[Edge]) -> Tensor:
        return stream.added([graph.number[edge.writer] for edge in here])

    def starting(layer: int) -> Tensor:
        return _changed_attention(stream, graph, layer, places.get((layer, 1), []), made)

    def joining(layer: int) -> Tensor | None:
        here = places.get((layer, 0))
        if here is None:
            return None
        read = slice(-1 if layer == n_layers else 0, None)
        plus = added(here)[:, :, read].flatten(0, 1)
        before, attention = (stream.expand(x[layer - 1][:, read], len(here)) for x in (clean.residual, clean.attn_out))
        return stream.block(layer - 1, before + plus, attention) - plus

    first = min(layer for layer, _ in places)
    to_logits = clean.last + added(places.get((n_layers, 1), []))[:, :, -1]
    if first == n_layers and (n_layers, 0) not in places:
        return to_logits
    climbed = climb(stream.model, clean, min(first, n_layers - 1), starting, joining).unflatten(0, (-1, stream.batch))
    return torch.cat([climbed, to_logits])


def _changed_attention(
    stream: Stream, graph: Graph, layer: int, edges: Sequence[Edge], made: Callable[[int], Call]
) -> Float[Tensor, "rows read d_model"]:
    """What attention of a layer writes with one of its heads' inputs corrupted, for each edge, where it is read: in the last layer at the
    last position; [len(edges)*batch read d_model]."""
    clean, batch = stream.clean, stream.batch
    read = slice(-1 if layer == graph.n_layers - 1 else 0, None)
    written = clean.attn_out[layer][:, read]
    if not edges:
        return written[:0]
    writers, parts = sorted({graph.number[edge.writer] for edge in edges}), sorted({edge.part for edge in edges})
    new = stream.qkv(layer, (clean.residual[layer] + stream.added(writers)).flatten(0, 1))
    was, now = ({"q": call.q[:, :, read], "k": call.k, "v": call.v} for call in (made(layer), new))
    was = {part: t.repeat(len(writers), 1, 1, 1) for part, t in was.items()}
    z = torch.stack([stream.attend(layer, *({**was, part: now[part]}[p] for p in PARTS), like=new) for part in parts])
    chosen = [(parts.index(edge.part), writers.index(graph.number[edge.writer]), edge.reader.head) for edge in edges]
    part, writer, head = torch.tensor(chosen, device=z.device).T
    moved = z.unflatten(1, (-1, batch))[part, writer, :, :, head] - clean.z[layer][:, read, head].permute(2, 0, 1, 3)
    changed = torch.baddbmm(written.flatten(0, 1)[None], moved.flatten(1, 2), stream.weights[layer][head])
    return changed.view(-1, *written.shape[1:])


def edge_sets(stream: Stream, graph: Graph, corrupted: Bool[Tensor, "n_sets n_edges"]) -> Float[Tensor, "n_sets batch d_model"]:
    """The residual that predicts the answer when all edges of a set are corrupted, for each set over ``graph.edges``."""
    return torch.cat([_sets(stream, graph, part) for part in corrupted.split(stream.together)])


def _sets(stream: Stream, graph: Graph, corrupted: Bool[Tensor, "n_sets n_edges"]) -> Float[Tensor, "n_sets batch d_model"]:
    columns: dict[tuple[Node, str], list[tuple[int, int]]] = {}
    for at, edge in enumerate(graph.edges):
        columns.setdefault((edge.reader, edge.part), []).append((graph.number[edge.writer], at))
    n_sets, facts = len(corrupted), stream.model.facts
    now = [stream.outputs[0].expand(n_sets, *stream.outputs[0].shape)]  # of every writer so far, [n_sets batch n d_model]

    def shown(reader: Node, part: str = "") -> Tensor:
        """What corrupted edges add to a reader's input."""
        mask = torch.zeros(n_sets, len(now), dtype=now[0].dtype, device=now[0].device)
        for writer, at in columns[reader, part]:
            mask[:, writer] = corrupted[:, at].to(mask.dtype)
        return sum(
            (mask[:, w, None, None, None] * (stream.corrupted[w] - out) for w, out in enumerate(now) if bool(mask[:, w].any())),
            start=torch.zeros_like(now[0]),
        )

    x = now[0]
    for layer in range(facts.n_layers):
        heads = [Node("head", layer, head) for head in range(facts.n_heads)]
        own = torch.stack(
            [x + shown(node, part) for node in heads for part in PARTS], 1
        )  # [n_sets heads*parts batch n d_model]
        made = stream.qkv(layer, own.flatten(0, 2))
        q, k, v = (_own_heads(t, i, facts.n_heads, stream.batch) for i, t in enumerate((made.q, made.k, made.v)))
        written = stream.written(layer, stream.attend(layer, q, k, v, like=made)).unflatten(0, (n_sets, -1))
        now += written.unbind(-2)
        attention = written.sum(-2) + stream.biases[layer]
        plus = shown(Node("mlp", layer)) if facts.d_mlp else torch.zeros_like(x)
        after = stream.block(layer, (x + plus).flatten(0, 1), attention.flatten(0, 1)).view_as(x) - plus
        now += [after - x - attention] if facts.d_mlp else []
        x = after
    return (x + shown(Node("logits")))[:, :, -1]


def _own_heads(t: Float[Tensor, "rows some_heads n d_head"], part: int, n_heads: int, batch: int) -> Tensor:
    """Of rows [n_sets heads parts batch] each head's own row of one part, [n_sets*batch head n d_head]."""
    t = t.unflatten(0, (-1, n_heads, len(PARTS), batch))[:, :, part]
    heads = torch.arange(n_heads, device=t.device)
    return t[:, heads, :, heads * t.shape[3] // n_heads].movedim(0, 2).flatten(0, 1)
