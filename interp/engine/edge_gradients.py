"""The gradient of an outcome at the input of every reader, and what it makes of every edge.

A reader is shown what the corrupted prompt's writers add to its input; to first order this changes the outcome by the product of what is
added with the gradient there (edge attribution patching, arXiv 2310.10348). One backward pass gives the gradients at queries, keys,
values and the stream between blocks; from there it is one step back through a norm and a projection, or an MLP, for each reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.attention import Call, reading
from interp.engine.restart import call_block
from interp.engine.stream import Stream
from interp.graph import PARTS, Graph, Node

Value = Callable[[Float[Tensor, "1 batch d_model"]], Float[Tensor, "1 batch"]]


@dataclass(eq=False)
class _Pass:
    """One pass with its graph of derivatives: ``streams`` [batch n d_model] before each block and after the last; by layer what attention
    wrote, and the queries, keys and values of each query head."""

    streams: list[Tensor]
    attention: list[Tensor]
    parts: list[tuple[Tensor, Tensor, Tensor]]
    value: Tensor


def edge_gradients(
    stream: Stream, graph: Graph, value: Value, inputs: Sequence[Float[Tensor, "batch n d_model"]]
) -> Float[Tensor, "n_edges batch"]:
    """What corrupting each edge of ``graph`` adds to ``value`` of the last residual, to first order; gradients are the mean over passes
    that enter the first block with each of ``inputs``. To be used within the model's lock, on a stream opened under ``no_grad``.
    """
    total = {reader: torch.zeros_like(stream.outputs[0]) for reader in graph.readers}
    for x in inputs:
        for reader, gradient in _at_readers(stream, value, x).items():
            if reader in total:
                total[reader] += gradient / len(inputs)
    return torch.stack(
        [torch.einsum("bnd,bnd->b", stream.added(graph.number[e.writer]), total[e.reader, e.part]) for e in graph.edges]
    ).detach()


def _at_readers(stream: Stream, value: Value, x: Tensor) -> dict[tuple[Node, str], Float[Tensor, "batch n d_model"]]:
    """The gradient at the input of every reader, in a pass that enters the first block with ``x``."""
    facts = stream.model.facts
    with torch.enable_grad():
        seen = _run(stream, value, x)
        wanted = [*seen.streams[1:], *(t for layer in seen.parts for t in layer)]
        slopes = torch.autograd.grad(seen.value.sum(), wanted)
        after, parts = slopes[: facts.n_layers], slopes[facts.n_layers :]
        found = {(Node("logits"), ""): after[-1]}
        for layer in range(facts.n_layers):
            entering = seen.streams[layer].detach()
            by_head = _through_projections(stream, layer, entering, parts[3 * layer : 3 * layer + 3])
            for head in range(facts.n_heads):
                for part, gradient in zip(PARTS, by_head[head], strict=True):
                    found[Node("head", layer, head), part] = gradient
            if facts.d_mlp:
                leaf = entering.clone().requires_grad_()
                written = stream.block(layer, leaf, seen.attention[layer].detach()) - leaf
                found[Node("mlp", layer), ""] = torch.autograd.grad(written, leaf, after[layer])[0]
    return found


def _run(stream: Stream, value: Value, x: Tensor) -> _Pass:
    facts, hf = stream.model.facts, stream.model.hf
    assert hf is not None
    x = x.detach().clone().requires_grad_()
    seen = _Pass([x], [], [], x)

    def reader(layer: int) -> Callable[[Call], Tensor]:
        def read(call: Call) -> Tensor:
            k, v = (t.repeat_interleave(facts.group_size, 1) for t in (call.k, call.v))
            seen.parts.append((call.q, k, v))
            z = stream.attend(layer, call.q, k, v, like=call)
            seen.attention.append(stream.written(layer, z).sum(-2) + stream.biases[layer])
            return z.transpose(1, 2)

        return read

    with reading(hf, {module: reader(layer) for layer, module in enumerate(stream.layout.attentions)}):
        for layer, block in enumerate(stream.layout.blocks):
            seen.streams.append(call_block(block, stream.clean, layer, seen.streams[-1]))
    return replace(seen, value=value(seen.streams[-1][None, :, -1]))


def _through_projections(
    stream: Stream, layer: int, x: Float[Tensor, "batch n d_model"], slopes: Sequence[Float[Tensor, "batch head n d_head"]]
) -> Float[Tensor, "head parts batch n d_model"]:
    """Gradients at queries, keys and values of each query head, taken back to the input of the layer."""
    facts = stream.model.facts
    leaf = stream.expand(x, facts.n_heads * len(PARTS)).clone().requires_grad_()
    made = stream.qkv(layer, leaf)
    total = leaf.new_zeros(())
    for i, (t, slope) in enumerate(zip((made.q, made.k, made.v), slopes, strict=True)):
        rows = t.unflatten(0, (facts.n_heads, len(PARTS), -1))[:, i]
        heads = torch.arange(facts.n_heads, device=t.device)
        own = rows[heads, :, heads * rows.shape[2] // facts.n_heads]
        total = total + (own * slope.movedim(1, 0)).sum()
    return torch.autograd.grad(total, leaf)[0].unflatten(0, (facts.n_heads, len(PARTS), -1))
