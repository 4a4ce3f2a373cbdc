"""First-order effects of all edges: the gradient of an outcome at every reader's input times the change of that input.

Corrupting an edge changes the reader's input by the difference of the writer's outputs; to first order the outcome changes by
the product of this difference with the gradient (edge attribution patching, arXiv 2310.10348). One backward pass gives the
gradients at queries, keys, values and residuals between blocks; from there it is one step back through a norm and a projection,
or an MLP, for each reader. The gradient may be averaged over runs in which some writers are interpolated towards their outputs
on the corrupted prompt (integrated gradients, arXiv 2403.17806): the embedding alone, or each layer's heads and MLP in turn, whose
outputs then either are added to (earlier edges keep their gradient) or replaced, as published.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.edges.qkv_from_separate_inputs import gradients_at_inputs, projected
from interp.engine.edges.residual_decomposition import ResidualDecomposition
from interp.engine.sweep.work_units import gradient_memory, tokens_at_once
from interp.graph import QKV, Graph, Node
from interp.models.memory import activation_bytes
from interp.models.model import Model

Value = Callable[[Float[Tensor, "n_runs batch *n_tokens d_model"]], Float[Tensor, "n_runs batch"]]


def moved_in_turn(
    graph: Graph, groups: Sequence[Sequence[Node]], fractions: Sequence[float]
) -> Float[Tensor, "n_runs n_writers"]:
    """Runs in which the writers of one group at a time are interpolated, by each of ``fractions``."""
    moved = torch.zeros(len(groups), len(fractions), len(graph.writers))
    for i, group in enumerate(groups):
        moved[i, :, [graph.writer_index[writer] for writer in group]] = torch.tensor(fractions)[:, None]
    return moved.flatten(0, 1)


def runs_with_gradients(model: Model, n_tokens: int) -> int:
    """Number of runs of ``n_tokens`` each in one pass whose activations are all kept for a backward pass."""
    kept = model.facts.n_layers * activation_bytes(model.facts, n_tokens)
    return max(1, min(tokens_at_once(model) // n_tokens, gradient_memory(model) // kept))


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
    constant = torch.zeros_like(fractions, dtype=torch.bool) if replaced is None else replaced
    changes = decomposition.corrupted - decomposition.outputs
    runs = min(decomposition.runs_per_batch, runs_with_gradients(decomposition.model, decomposition.clean.positions.numel()))
    total, edges_into = changes.new_zeros(len(graph.edges), decomposition.batch), graph.edges_into
    for part, fixed in zip(fractions.to(changes).split(runs), constant.split(runs), strict=True):
        for readers, gradients in _at_readers(decomposition, graph, value, part, fixed.to(part.device), changes):
            mean = gradients.unflatten(1, (len(part), -1)).sum(1) / len(fractions)
            n_writers = len(edges_into[readers[0]])
            effects = _by_prompt(mean) @ _by_prompt(changes[:n_writers]).mT
            for reader, own in zip(readers, effects.movedim(0, -1), strict=True):
                edges = edges_into[reader]
                total[edges.start : edges.stop] += own
    return total


def _by_prompt(x: Float[Tensor, "some batch n d_model"]) -> Float[Tensor, "batch some n_d"]:
    return x.flatten(2).transpose(0, 1)


def _at_readers(
    decomposition: ResidualDecomposition,
    graph: Graph,
    value: Value,
    fractions: Float[Tensor, "n_runs n_writers"],
    replaced: Bool[Tensor, "n_runs n_writers"],
    changes: Float[Tensor, "n_writers batch n d_model"],
) -> Iterator[tuple[list[tuple[Node, str]], Float[Tensor, "readers rows n d_model"]]]:
    """Readers that have the same writers, with the gradient at the input of each in every run; rows are repetitions of the batch."""
    facts, n_runs = decomposition.model.facts, len(fractions)
    logits = (Node("logits"), "")

    def moved(x: Tensor, nodes: Sequence[Node]) -> Tensor:
        """``x`` with what these nodes write moved by their fractions."""
        own = slice(graph.writer_index[nodes[0]], graph.writer_index[nodes[-1]] + 1)
        if not fractions[:, own].any():
            return x
        return x + torch.einsum("rw,wbnd->rbnd", fractions[:, own], changes[own]).flatten(0, 1)

    def constant(node: Node) -> Bool[Tensor, "rows 1 1"]:
        """The rows in which what this node writes is a constant."""
        return replaced[:, graph.writer_index[node]].repeat_interleave(decomposition.batch)[:, None, None]

    with torch.enable_grad():
        x = moved(decomposition.expand(decomposition.outputs[0], n_runs), [Node("input")]).requires_grad_()
        entering, read, outputs = [], [], []
        for layer in range(facts.n_layers):
            heads, mlp = [Node("head", layer, head) for head in range(facts.n_heads)], Node("mlp", layer)
            with projected(decomposition, layer) as own:
                made = decomposition.qkv(layer, x)
            by_head = [*decomposition.per_query_head(made).values()]
            z = decomposition.attend(layer, *by_head, like=made)
            attention = torch.einsum("bnhd,hdm->bnm", z, decomposition.weights[layer]) + decomposition.biases[layer]
            if replaced.any():
                attention = torch.where(constant(heads[0]), attention.detach(), attention)
            attention = moved(attention, heads)
            entering.append(x.detach())
            outputs.append(own)
            before, own_path = x + attention, x.view_as(x)  # into the MLP, beside the stream itself
            x = decomposition.block(layer, own_path, attention)
            if facts.d_mlp:
                if replaced.any():
                    written = x - before
                    x = before + torch.where(constant(mlp), written.detach(), written)
                x = moved(x, [mlp])
            read += [x, own_path, *by_head]
        slopes = torch.autograd.grad(value(decomposition.at_end(x.unflatten(0, (n_runs, -1)))).sum(), read)
    yield [logits], slopes[-5][None]
    for layer in reversed(range(facts.n_layers)):
        after, path, *parts = slopes[5 * layer : 5 * layer + 5]
        if facts.d_mlp:
            mlp = Node("mlp", layer)
            passed = torch.where(constant(mlp), 0, after)
            yield [(mlp, "")], (path - passed)[None]
        gradients = gradients_at_inputs(decomposition, layer, entering[layer], outputs[layer], parts)
        for part, gradient in zip(QKV, gradients, strict=True):
            yield [(Node("head", layer, head), part) for head in range(facts.n_heads)], gradient
