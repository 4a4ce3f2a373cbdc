"""Effects of all edges by integrated gradients at the readers' outputs.

A corrupted edge acts in two steps: its reader's output changes, and later components respond. The first step is computed
exactly, in the reader's own layer. The second is a gradient at the reader's output, averaged over the straight path on which
this reader alone is interpolated from its clean to its corrupted output while later components follow; an edge that moves its
reader by part of that distance uses the first part of the path. Gradients are thus integrated along one path per reader instead
of one for the model (this project's own variant), and nothing inside a reader, saturated attention above all, is linearised.
Edges into the logits have no second step.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.edges.edge_attribution import Value
from interp.engine.edges.edge_patching import z_changes
from interp.engine.edges.residual_decomposition import ResidualDecomposition
from interp.engine.sweep.resume_from_layer import resume_from_layer
from interp.graph import QKV, Graph


def edge_changes(
    decomposition: ResidualDecomposition, graph: Graph, value: Value, steps: int, layers: Sequence[int] | None = None
) -> Float[Tensor, "some_edges batch"]:
    """Effect of corrupting each edge of ``graph`` on ``value`` of the final residual, with gradients at the midpoints of
    ``steps`` equal steps; by default of all edges, else of those into ``layers`` (``n_layers``: the logits). Call it within the
    model's lock, on a decomposition computed under ``no_grad``."""
    found = []
    for layer in range(graph.n_layers + 1) if layers is None else layers:
        if layer == graph.n_layers:
            last, moved = decomposition.clean.final_residual, decomposition.output_difference(range(len(graph.writers)))
            found.append(value(last + decomposition.at_end(moved)) - value(last[None]))
            continue
        found.append(_into_heads(decomposition, value, steps, layer))
        if graph.has_mlps:
            found.append(_into_mlp(decomposition, value, steps, layer))
    return torch.cat(found)


def _into_heads(decomposition: ResidualDecomposition, value: Value, steps: int, layer: int) -> Float[Tensor, "edges batch"]:
    clean, weights, read = decomposition.clean, decomposition.weights[layer], decomposition.read_positions(layer)
    first, n_heads = decomposition.n_writers_before(layer), len(weights)
    ways = decomposition.output_difference(range(first, first + n_heads))[:, :, read]

    def continued(rows: Tensor) -> Tensor:
        return resume_from_layer(decomposition.model, clean, layer, lambda at: rows if at == layer else rows[:0])

    slopes = []  # at z of each head
    for way, w_o in zip(*(t.split(max(1, decomposition.runs_per_batch // steps)) for t in (ways, weights)), strict=True):
        at_output = _slopes(decomposition, value, steps, clean.attn_out[layer][:, read], way, continued)
        slopes.append(torch.einsum("hsbnm,hdm->hsbnd", at_output, w_o))
    slope, squares = torch.cat(slopes), weights @ weights.mT
    was = decomposition.qkv(layer, clean.residual[layer])
    found = ways.new_empty(n_heads, len(QKV), first, decomposition.batch)
    for writers in torch.arange(first).split(decomposition.runs_per_batch):
        for i, change in enumerate(z_changes(decomposition, layer, writers.tolist(), QKV, was)):
            size = torch.einsum("wbnhd,hde,wbnhe->hwb", change, squares, change).clamp(min=0).sqrt()
            terms = torch.einsum("wbnhd,hsbnd->hwsb", change, slope)
            found[:, i, writers] = _mean_over_path(terms, size / ways.norm(dim=(2, 3))[:, None])
    return found.flatten(0, 2)


def _into_mlp(decomposition: ResidualDecomposition, value: Value, steps: int, layer: int) -> Float[Tensor, "edges batch"]:
    model, clean, read = decomposition.model, decomposition.clean, decomposition.read_positions(layer)
    known = decomposition.n_writers_before(layer) + (0 if model.facts.parallel_attn_mlp else model.facts.n_heads)
    x, attention = clean.residual[layer][:, read], clean.attn_out[layer][:, read]
    after = decomposition.block(layer, x, attention)
    way = decomposition.output_difference([decomposition.n_writers_before(layer + 1) - 1])[:, :, read]

    def continued(rows: Tensor) -> Tensor:
        return resume_from_layer(model, clean, layer + 1, lambda at: rows[:0], lambda at: rows if at == layer + 1 else None)

    slope = _slopes(decomposition, value, steps, after, way, continued)[0]
    found = []
    for writers in torch.arange(known).split(decomposition.runs_per_batch):
        plus = decomposition.output_difference(writers.tolist())[:, :, read]
        entering, beside = (decomposition.expand(t, len(writers)) for t in (x, attention))
        change = decomposition.block(layer, entering + plus.flatten(0, 1), beside).view_as(plus) - plus - after
        terms, share = torch.einsum("wbnm,sbnm->wsb", change, slope), change.norm(dim=(2, 3)) / way.norm(dim=(2, 3))
        found.append(_mean_over_path(terms, share))
    return torch.cat(found)


def _slopes(
    decomposition: ResidualDecomposition,
    value: Value,
    steps: int,
    start: Float[Tensor, "batch read d_model"],
    ways: Float[Tensor, "readers batch read d_model"],
    continued: Callable[[Float[Tensor, "rows read d_model"]], Float[Tensor, "rows *n_tokens d_model"]],
) -> Float[Tensor, "readers steps batch read d_model"]:
    """The gradient along the path of each reader, from ``start`` on."""
    fractions = (torch.arange(steps).to(ways) + 0.5) / steps
    found = []
    for part in (start + fractions[:, None, None, None] * ways[:, None]).flatten(0, 1).split(decomposition.runs_per_batch):
        with torch.enable_grad():
            rows = part.flatten(0, 1).requires_grad_()
            reached = value(continued(rows).unflatten(0, (len(part), -1)))
            found.append(torch.autograd.grad(reached.sum(), rows)[0].view_as(part))
    return torch.cat(found).unflatten(0, (len(ways), steps))


def _mean_over_path(
    terms: Float[Tensor, "*edges steps batch"], share: Float[Tensor, "*edges batch"]
) -> Float[Tensor, "*edges batch"]:
    """The mean over the first ``share`` of the steps, at least the first and at most all."""
    steps = terms.shape[-2]
    until = share.nan_to_num(0).clamp(1 / steps, 1)[..., None, :] * steps
    taken = (until - torch.arange(steps).to(terms)[:, None]).clamp(0, 1)
    return (terms * taken).sum(-2) / taken.sum(-2)
