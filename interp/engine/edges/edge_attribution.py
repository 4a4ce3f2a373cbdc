"""First-order effects of all edges: the gradient of an outcome at every reader's input times the change of that input.

Corrupting an edge changes the reader's input by the difference of the writer's outputs; to first order the outcome changes by
the product of this difference with the gradient (edge attribution patching, arXiv 2310.10348). One backward pass gives the
gradients at queries, keys, values and residuals between blocks; from there it is one step back through a norm and a projection,
or an MLP, for each reader. The gradient may be averaged over runs in which some writers are interpolated towards their outputs
on the corrupted prompt (integrated gradients, arXiv 2403.17806): the embedding alone, or each layer's heads and MLP in turn, whose
outputs then either are added to (earlier edges keep their gradient) or replaced, as published.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.edges.residual_decomposition import ResidualDecomposition
from interp.graph import QKV, Graph, Node

Value = Callable[[Float[Tensor, "n_runs batch d_model"]], Float[Tensor, "n_runs batch"]]


def moved_in_turn(
    graph: Graph, groups: Sequence[Sequence[Node]], fractions: Sequence[float]
) -> Float[Tensor, "n_runs n_writers"]:
    """Runs in which the writers of one group at a time are interpolated, by each of ``fractions``."""
    moved = torch.zeros(len(groups), len(fractions), len(graph.writers))
    for i, group in enumerate(groups):
        moved[i, :, [graph.writer_index[writer] for writer in group]] = torch.tensor(fractions)[:, None]
    return moved.flatten(0, 1)


def edge_gradients(
    decomposition: ResidualDecomposition,
    graph: Graph,
    value: Value,
    fractions: Float[Tensor, "n_runs n_writers"],
    replaced: Bool[Tensor, "n_runs n_writers"] | None = None,
) -> Float[Tensor, "n_edges batch"]:
    """First-order effect of corrupting each edge of ``graph`` on ``value`` of the final residual.

    Gradients are averaged over runs in which each writer is corrupted by a fraction; 0 for all writers is the clean run. The outputs of
    ``replaced`` writers (by default none) are constants, through which no gradient flows back to earlier edges. Call it within the
    model's lock, on a decomposition computed under ``no_grad``.
    """
    total = {reader: torch.zeros_like(decomposition.outputs[0]) for reader in graph.readers}
    constant = torch.zeros_like(fractions, dtype=torch.bool) if replaced is None else replaced
    runs = decomposition.runs_per_batch
    for part, fixed in zip(fractions.to(decomposition.outputs).split(runs), constant.split(runs), strict=True):
        for reader, gradient in _at_readers(decomposition, graph, value, part, fixed.to(part.device)).items():
            total[reader] += gradient.unflatten(0, (len(part), -1)).sum(0) / len(fractions)
    changes = decomposition.corrupted - decomposition.outputs
    pairs = ((changes[graph.writer_index[e.writer]], total[e.reader, e.qkv]) for e in graph.edges)
    return torch.stack([torch.einsum("bnd,bnd->b", change, gradient) for change, gradient in pairs])


def _at_readers(
    decomposition: ResidualDecomposition,
    graph: Graph,
    value: Value,
    fractions: Float[Tensor, "n_runs n_writers"],
    replaced: Bool[Tensor, "n_runs n_writers"],
) -> dict[tuple[Node, str], Float[Tensor, "rows n d_model"]]:
    """The gradient at the input of every reader in every run; rows are repetitions of the batch."""
    facts = decomposition.model.facts
    found: dict[tuple[Node, str], Tensor] = {}

    def moved(nodes: Sequence[Node]) -> Tensor:
        at = [graph.writer_index[node] for node in nodes]
        return torch.einsum("rw,wbnd->rbnd", fractions[:, at], decomposition.output_difference(at)).flatten(0, 1)

    def stopped(nodes: Sequence[Node], written: Tensor) -> Tensor:
        """What these nodes write, as a constant in the runs in which they are replaced."""
        rows = replaced[:, [graph.writer_index[node] for node in nodes]].any(1)
        rows = rows.repeat_interleave(len(written) // len(fractions))[:, None, None]
        return torch.where(rows, written.detach(), written)

    with torch.enable_grad():
        x = (decomposition.expand(decomposition.outputs[0], len(fractions)) + moved([Node("input")])).requires_grad_()
        streams, attention, parts = [x], [], []
        for layer in range(facts.n_layers):
            made = decomposition.qkv(layer, x)
            own = decomposition.per_query_head(made).values()
            z = decomposition.attend(layer, *own, like=made)
            heads = [Node("head", layer, head) for head in range(facts.n_heads)]
            written = stopped(heads, decomposition.head_outputs(layer, z).sum(-2) + decomposition.biases[layer])
            attention.append(written + moved(heads))
            before, x = x + attention[-1], decomposition.block(layer, x, attention[-1])
            if facts.d_mlp:
                mlp = [Node("mlp", layer)]
                x = before + stopped(mlp, x - before) + moved(mlp) if replaced.any() else x + moved(mlp)
            streams.append(x)
            parts += own
        slopes = torch.autograd.grad(value(x[:, -1].unflatten(0, (len(fractions), -1))).sum(), [*streams[1:], *parts])
        found[Node("logits"), ""] = slopes[facts.n_layers - 1]
        for layer in range(facts.n_layers):
            entering, at = streams[layer].detach().requires_grad_(), facts.n_layers + 3 * layer
            made = decomposition.qkv(layer, entering)
            for part, t, slope in zip(QKV, (made.q, made.k, made.v), slopes[at : at + 3], strict=True):
                for node in (Node("head", layer, head) for head in range(facts.n_heads)):
                    read = t[:, node.head * t.shape[1] // facts.n_heads]
                    found[node, part] = torch.autograd.grad(read, entering, slope[:, node.head], retain_graph=True)[0]
            if facts.d_mlp:
                mlp = Node("mlp", layer)
                written = stopped([mlp], decomposition.block(layer, entering, attention[layer].detach()) - entering)
                found[mlp, ""] = torch.autograd.grad(written, entering, slopes[layer])[0]
    return found
