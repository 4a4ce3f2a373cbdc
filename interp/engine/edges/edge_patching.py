"""Exact effects of corrupted edges: one at a time, or any set of them at once.

A corrupted edge gives its reader the writer's output on the corrupted prompt; everything after the reader is recomputed, and
nothing else changes. One edge changes one head's z, one MLP's output or the final residual, from which the run is resumed
(``patch_single_edges``): all edges into a layer share one pass for their queries, keys and values. A set of edges needs a run
of its own, in which every reader has its own input (``patch_edge_sets``); for a set of one edge both give the same number.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.edges.qkv_from_separate_inputs import qkv_of_inputs
from interp.engine.edges.residual_decomposition import ResidualDecomposition
from interp.engine.sweep.resume_from_layer import resume_from_layer
from interp.engine.sweep.work_units import gradient_memory, tokens_at_once
from interp.graph import QKV, Edge, Graph
from interp.models.memory import ITEM_BYTES
from interp.models.model import Model


def graph_of(model: Model) -> Graph:
    """The graph of a model. Raises ValueError for an encoder."""
    facts = model.facts
    facts.check_causal("A circuit")
    return Graph(facts.n_layers, facts.n_heads, facts.d_mlp > 0, facts.parallel_attn_mlp)


Read = Callable[[Float[Tensor, "some batch *n_tokens d_model"]], Float[Tensor, "some batch *read"]]


def patch_single_edges(
    decomposition: ResidualDecomposition, edges: Sequence[Edge], read: Read = lambda x: x
) -> Float[Tensor, "n_edges batch *read"]:
    """``read`` of the final residual with one edge corrupted, for each edge; by default the residual itself."""
    graph, runs_per_batch = graph_of(decomposition.model), decomposition.runs_per_batch
    places = [_resume_point(graph, edge) for edge in edges]
    order = sorted(range(len(edges)), key=lambda i: places[i])
    first_at_end = bisect_left(order, (graph.n_layers - 1, 1), key=lambda i: places[i][:2])
    made = cache(lambda layer: decomposition.qkv(layer, decomposition.clean.residual[layer]))
    step = runs_per_batch * len(QKV) * graph.n_heads  # all edges from that many writers into a layer
    found: list[Tensor] = []
    for some, runs in ((order[:first_at_end], runs_per_batch), (order[first_at_end:], step)):
        for first in range(0, len(some), step):
            group = [edges[i] for i in some[first : first + step]]
            moved = _moved_z(decomposition, graph, group, made)
            parts = (group[at : at + runs] for at in range(0, len(group), runs))
            found.append(read(torch.cat([_continued(decomposition, graph, part, moved) for part in parts])))
    return torch.cat(found)[torch.tensor(order).argsort()]


def _resume_point(graph: Graph, edge: Edge) -> tuple[int, int, int]:
    """The layer at which the changed run departs from the clean one, 0 for its input (after an MLP) or 1 for its attention, and
    the writer. From the last attention on, only the last position matters."""
    reader, writer = edge.reader, graph.writer_index[edge.writer]
    if reader.kind == "logits":
        return (graph.n_layers, 1, writer)
    return (reader.layer + 1, 0, writer) if reader.kind == "mlp" else (reader.layer, 1, writer)


def _moved_z(
    decomposition: ResidualDecomposition, graph: Graph, edges: Sequence[Edge], made: Callable[[int], AttentionInputs]
) -> dict[Edge, Float[Tensor, "batch read d_head"]]:
    """The change of z that each edge into a head makes, where z is read; ``made`` are a layer's clean queries, keys and values."""
    found: dict[Edge, Tensor] = {}
    for layer in sorted({edge.reader.layer for edge in edges if edge.qkv}):
        here = [edge for edge in edges if edge.qkv and edge.reader.layer == layer]
        writers, parts = sorted({graph.writer_index[edge.writer] for edge in here}), sorted({edge.qkv for edge in here})
        for first in range(0, len(writers), decomposition.runs_per_batch):
            some = writers[first : first + decomposition.runs_per_batch]
            moved = dict(zip(parts, z_changes(decomposition, layer, some, parts, made(layer)), strict=True))
            for edge in (edge for edge in here if graph.writer_index[edge.writer] in some):
                found[edge] = moved[edge.qkv][some.index(graph.writer_index[edge.writer]), :, :, edge.reader.head]
    return found


def z_changes(
    decomposition: ResidualDecomposition, layer: int, writers: Sequence[int], parts: Sequence[str], was: AttentionInputs
) -> Iterator[Float[Tensor, "writers batch read n_heads d_head"]]:
    """For each of ``parts``, what corrupting the edges of some writers into it, one at a time, changes of z of every head,
    where that is read; ``was`` are the clean queries, keys and values of the layer."""
    clean, read = decomposition.clean, decomposition.read_positions(layer)
    now = decomposition.qkv(layer, (clean.residual[layer] + decomposition.output_difference(writers)).flatten(0, 1))
    old, new = ({"q": call.q[:, :, read], "k": call.k, "v": call.v} for call in (was, now))
    old = {part: t.repeat(len(writers), 1, 1, 1) for part, t in old.items()}
    for part in parts:
        z = decomposition.attend(layer, *({**old, part: new[part]}[p] for p in QKV), like=now)
        yield z.unflatten(0, (len(writers), -1)) - clean.z[layer][:, read]


def _continued(
    decomposition: ResidualDecomposition,
    graph: Graph,
    edges: Sequence[Edge],
    moved: dict[Edge, Float[Tensor, "batch read d_head"]],
) -> Float[Tensor, "n_edges batch *n_tokens d_model"]:
    """As ``patch_single_edges``, for edges in the order of ``_resume_point``, of which those into heads are in ``moved``."""
    clean, n_layers = decomposition.clean, graph.n_layers
    places = {place: [*group] for place, group in groupby(edges, key=lambda edge: _resume_point(graph, edge)[:2])}

    def added(here: Sequence[Edge]) -> Tensor:
        return decomposition.output_difference([graph.writer_index[edge.writer] for edge in here])

    def changed_attention(layer: int) -> Tensor:
        here, written = places.get((layer, 1), []), clean.attn_out[layer][:, decomposition.read_positions(layer)]
        if not here:
            return written[:0]
        z = torch.stack([moved[edge] for edge in here]).flatten(1, 2)
        weights = decomposition.weights[layer][[edge.reader.head for edge in here]]
        return torch.baddbmm(written.flatten(0, 1)[None], z, weights).view(-1, *written.shape[1:])

    def changed_residual(layer: int) -> Tensor | None:
        if not (here := places.get((layer, 0))):
            return None
        read = decomposition.read_positions(layer - 1)
        plus = added(here)[:, :, read].flatten(0, 1)
        before, attention = (decomposition.expand(x[layer - 1][:, read], len(here)) for x in (clean.residual, clean.attn_out))
        return decomposition.block(layer - 1, before + plus, attention) - plus

    first = min(layer for layer, _ in places)
    to_logits = clean.final_residual + decomposition.at_end(added(places.get((n_layers, 1), [])))
    if first == n_layers and (n_layers, 0) not in places:
        return to_logits
    rows = resume_from_layer(decomposition.model, clean, min(first, n_layers - 1), changed_attention, changed_residual)
    return torch.cat([rows.unflatten(0, (-1, decomposition.batch)), to_logits])


def sets_at_once(model: Model, n_tokens: int) -> int:
    """Number of sets of corrupted edges per pass over ``n_tokens``, so that the outputs of all writers in each, and the inputs of a
    layer's heads before and behind their norm, fit into memory."""
    facts = model.facts
    n_outputs = 1 + facts.n_layers * (facts.n_heads + 1) + 3 * len(QKV) * facts.n_heads
    fitting = gradient_memory(model) // (n_outputs * n_tokens * facts.d_model * ITEM_BYTES[facts.dtype])
    return max(1, min(tokens_at_once(model) // n_tokens, fitting))


def patch_edge_sets(
    decomposition: ResidualDecomposition, graph: Graph, corrupted: Bool[Tensor, "n_sets n_edges"]
) -> Float[Tensor, "n_sets batch *n_tokens d_model"]:
    """The final residual with all edges of a set corrupted, for each set over ``graph.edges``."""
    n_sets = min(decomposition.runs_per_batch, sets_at_once(decomposition.model, decomposition.clean.positions.numel()))
    parts = corrupted.to(decomposition.outputs.device).split(n_sets)
    return torch.cat([_sets(decomposition, graph, _masks(graph, part)) for part in parts])


def _masks(graph: Graph, corrupted: Bool[Tensor, "n_sets n_edges"]) -> Bool[Tensor, "n_sets n_readers n_writers"]:
    """The corrupted writers of every reader."""
    place = {reader: i for i, reader in enumerate(graph.readers)}
    masks = corrupted.new_zeros(len(corrupted), len(graph.readers), len(graph.writers))
    readers, writers = ([place[e.reader, e.qkv] for e in graph.edges], [graph.writer_index[e.writer] for e in graph.edges])
    masks[:, readers, writers] = corrupted
    return masks


def _sets(
    decomposition: ResidualDecomposition, graph: Graph, masks: Bool[Tensor, "n_sets n_readers n_writers"]
) -> Float[Tensor, "n_sets batch *n_tokens d_model"]:
    """As ``patch_edge_sets``, from the first layer on in which anything is corrupted."""
    clean, n_sets, n_heads, top = decomposition.clean, len(masks), graph.n_heads, graph.n_layers - 1
    n_parts, n_mlps = n_heads * len(QKV), int(graph.has_mlps)
    begin = int(masks.any(-1).any(0).int().argmax()) // (n_parts + n_mlps) if masks.any() else top + 1
    last = decomposition.n_last
    start = clean.residual[begin] if begin <= top else clean.final_residual.view(decomposition.batch, last, -1)
    x, n = start.expand(n_sets, *start.shape), start.shape[1]
    known = decomposition.n_writers_before(begin)
    added = x.new_empty(n_sets, len(graph.writers), *start.shape)  # to a reader's input when each known writer is corrupted
    added[:, :known] = decomposition.output_difference(range(known))[:, :, -n:]

    def shown(reader: int) -> Tensor:
        return torch.einsum("sw,swbnd->sbnd", masks[:, reader, :known].to(x), added[:, :known])

    for layer in range(begin, top + 1):
        first = layer * (n_parts + n_mlps)
        own_masks = masks[:, first : first + n_parts, :known].unflatten(1, (n_heads, len(QKV))).transpose(1, 2)
        inputs = torch.einsum("sphw,swbnd->phsbnd", own_masks.to(x), added[:, :known]).add_(x)
        own = qkv_of_inputs(decomposition, layer, inputs.flatten(2, 3))
        if layer == top:
            n, x, added = last, x[:, :, -last:], added[:, :, :, -last:]
        z = decomposition.attend(layer, own.q[:, :, -n:], own.k, own.v, like=own)
        written = decomposition.head_outputs(layer, z).unflatten(0, (n_sets, -1)).movedim(-2, 1)
        heads = slice(known, known + n_heads)
        added[:, heads] = decomposition.corrupted[heads, :, -n:] - written
        known += n_heads
        attention = written.sum(1) + decomposition.biases[layer]
        plus = shown(first + n_parts) if n_mlps else torch.zeros_like(x)
        after = decomposition.block(layer, (x + plus).flatten(0, 1), attention.flatten(0, 1)).view_as(x) - plus
        if n_mlps:
            added[:, known] = decomposition.corrupted[known, :, -n:] - (after - x - attention)
            known += 1
        x = after
    return decomposition.at_end(x + shown(-1))
