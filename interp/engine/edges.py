"""Edges of a model's graph, corrupted: one at a time, or any set of them at once.

A corrupted edge shows its reader what the writer wrote on the corrupted prompt; what comes after the reader is computed anew, all else
stays. One edge changes one head's z, one MLP's output or the last residual, from which the run is continued (``single_edges``): all
edges into a layer share one pass for their queries, keys and values. A set of edges needs a run of its own in which every reader
has its own input (``edge_sets``); a set of one edge gives the same number, by the other road.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.restart import climb
from interp.engine.stream import Stream
from interp.graph import PARTS, Edge, Graph, Node
from interp.models.model import Model


def graph_of(model: Model) -> Graph:
    """The graph of a model. Raises ValueError for an encoder."""
    facts = model.facts
    facts.check_causal("A circuit")
    return Graph(facts.n_layers, facts.n_heads, facts.d_mlp > 0, facts.parallel)


def single_edges(stream: Stream, edges: Sequence[Edge]) -> Float[Tensor, "n_edges batch d_model"]:
    """The residual that predicts the answer when one edge alone is corrupted, for each edge."""
    number, together = graph_of(stream.model).number, stream.together
    order = sorted(range(len(edges)), key=lambda i: _place(stream, edges[i]))
    found: list[Tensor] = []
    for first in range(0, len(order), together):
        part = [edges[i] for i in order[first : first + together]]
        found += _continued(stream, part, [number[edge.writer] for edge in part]).unbind(0)
    return torch.stack([found[at] for at in torch.tensor(order).argsort().tolist()])


def _place(stream: Stream, edge: Edge) -> tuple[int, int, int, int]:
    """Where the changed run leaves the clean one: at a block's entrance (after an MLP), or in its attention; then by writer."""
    reader, n_layers = edge.reader, stream.model.facts.n_layers
    writer = (edge.writer.layer, edge.writer.head)
    if reader.kind == "logits":
        return (n_layers, 1, *writer)
    return (reader.layer + 1, 0, *writer) if reader.kind == "mlp" else (reader.layer, 1, *writer)


def _continued(stream: Stream, edges: Sequence[Edge], writers: Sequence[int]) -> Float[Tensor, "n_edges batch d_model"]:
    """As ``single_edges``, for edges in the order of ``_place``."""
    clean, n_layers = stream.clean, stream.model.facts.n_layers
    places = {p: list(group) for p, group in groupby(range(len(edges)), key=lambda i: _place(stream, edges[i])[:2])}

    def starting(layer: int) -> Tensor:
        here = places.get((layer, 1), [])
        return _changed_attention(stream, layer, [edges[i] for i in here], [writers[i] for i in here])

    def joining(layer: int) -> Tensor | None:
        here = places.get((layer, 0))
        if here is None:
            return None
        plus = stream.added([writers[i] for i in here]).flatten(0, 1)
        before = stream.expand(clean.residual[layer - 1], len(here))
        return stream.block(layer - 1, before + plus, stream.expand(clean.attn_out[layer - 1], len(here))) - plus

    first = min(layer for layer, _ in places)
    last = places.get((n_layers, 1), [])
    to_logits = clean.last + stream.added([writers[i] for i in last])[:, :, -1]
    if first == n_layers and (n_layers, 0) not in places:
        return to_logits
    climbed = climb(stream.model, clean, min(first, n_layers - 1), starting, joining).unflatten(0, (-1, stream.batch))
    return torch.cat([climbed, to_logits])


def _changed_attention(
    stream: Stream, layer: int, edges: Sequence[Edge], writers: Sequence[int]
) -> Float[Tensor, "rows n d_model"]:
    """What attention of a layer writes with one of its heads' inputs corrupted, for each edge; [len(edges)*batch n d_model]."""
    clean = stream.clean
    out = clean.attn_out[layer].repeat(len(edges), 1, 1)
    if not edges:
        return out
    distinct = sorted(set(writers))
    x, batch = clean.residual[layer], stream.batch
    made = stream.qkv(layer, torch.cat([x, (x + stream.added(distinct)).flatten(0, 1)]))
    parts: dict[str, Tensor] = dict(zip(PARTS, (made.q, made.k, made.v), strict=True))
    was = {p: t[:batch].repeat(len(distinct), 1, 1, 1) for p, t in parts.items()}
    for part in sorted({edge.part for edge in edges}):
        z = stream.attend(layer, *({**was, part: parts[part][batch:]}[p] for p in PARTS), like=made).unflatten(0, (-1, batch))
        here = [i for i, edge in enumerate(edges) if edge.part == part]
        heads = torch.tensor([edges[i].reader.head for i in here])
        new = z[torch.tensor([distinct.index(writers[i]) for i in here]), :, :, heads]
        moved = new - clean.z[layer][:, :, heads].permute(2, 0, 1, 3)
        out.unflatten(0, (-1, batch))[torch.tensor(here)] += moved @ stream.weights[layer][heads][:, None]
    return out


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
