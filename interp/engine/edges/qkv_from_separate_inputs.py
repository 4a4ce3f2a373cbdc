"""Queries, keys and values of heads of which each reads an input of its own, and gradients back to these inputs.

Projections compute all heads of a layer from one input. Where each column of their output belongs to one head, a head's own columns
are computed alone from its input. Which columns these are is read off the gradients of queries, keys and values, and proven on the
data, once for each layer. Where projections cannot be cut so (heads that are normed together, latent attention, quantised weights),
the whole layer runs for every input.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.engine.attention.attention_interface import AttentionInputs, LeaveModule
from interp.engine.edges.residual_decomposition import ResidualDecomposition
from interp.engine.sweep.clean_pass import map_leaves
from interp.engine.sweep.fused_ops import replacing_forward
from interp.engine.sweep.resume_from_layer import call_block
from interp.errors import FastPathUnavailable
from interp.graph import QKV
from interp.models.model import Model
from interp.models.plain_model_reference import rounding
from interp.models.value_and_output_weights import plain_weight


@dataclass(frozen=True)
class HeadColumns:
    """The projections of a layer in the order of their calls, and, for queries, keys and values, the columns of their concatenated
    outputs that each (key/value) head is made of."""

    projections: tuple[nn.Module, ...]
    columns: tuple[Int[Tensor, "_ _"], ...]

    def parameters(self, n_heads: int) -> Iterator[tuple[Float[Tensor, "n_heads d_model d"], Float[Tensor, "n_heads 1 d"]]]:
        """Weights and biases of the queries, keys and values that each query head reads."""
        weight = torch.cat([plain_weight(p).T if isinstance(p, nn.Linear) else plain_weight(p) for p in self.projections], 1)
        own = (getattr(p, "bias", None) for p in self.projections)
        biases = [weight.new_zeros(p.shape[-1]) if b is None else b for p, b in zip(self._by_module(weight), own, strict=True)]
        bias = torch.cat(biases)
        for columns in self.columns:
            by_query = columns.repeat_interleave(n_heads // len(columns), 0)
            yield weight[:, by_query].movedim(1, 0), bias[by_query][:, None]

    def _by_module(self, outputs: Float[Tensor, "*rows total"]) -> Sequence[Tensor]:
        return outputs.split([_width(p) for p in self.projections], -1)

    @contextmanager
    def returning(self, outputs: Float[Tensor, "rows n total"]) -> Iterator[None]:
        """Within the context the projections have these outputs, whatever their input."""
        with ExitStack() as stack:
            for projection, own in zip(self.projections, self._by_module(outputs), strict=True):
                stack.enter_context(replacing_forward(projection, lambda _, own=own: own))
            yield


def _width(projection: nn.Module) -> int:
    weight = plain_weight(projection)
    return weight.shape[0] if isinstance(projection, nn.Linear) else weight.shape[1]


_FOUND: WeakKeyDictionary[Model, dict[int, HeadColumns | None]] = WeakKeyDictionary()


def head_columns(decomposition: ResidualDecomposition, layer: int) -> HeadColumns | None:
    """The columns of each head in a layer; None where its projections cannot be cut by head."""
    found = _FOUND.setdefault(decomposition.model, {})
    if layer not in found:
        cut = _find_columns(decomposition, layer)
        found[layer] = cut if cut is not None and _proven(decomposition, layer, cut) else None
    return found[layer]


def qkv_of_inputs(
    decomposition: ResidualDecomposition, layer: int, inputs: Float[Tensor, "qkv n_heads rows n d_model"]
) -> AttentionInputs:
    """Queries, keys and values of a layer, each by query head, with an input for every head and each of its three parts. Rows are
    repetitions of the batch."""
    cut = head_columns(decomposition, layer)
    return _whole_layers(decomposition, layer, inputs) if cut is None else _own_columns(decomposition, layer, inputs, cut)


@contextmanager
def projected(decomposition: ResidualDecomposition, layer: int) -> Iterator[list[Tensor]]:
    """The outputs of the projections of a layer that runs within the context; empty where they cannot be cut by head."""
    cut, outputs = head_columns(decomposition, layer), []
    with ExitStack() as stack:
        for projection in cut.projections if cut else ():
            stack.callback(projection.register_forward_hook(lambda module, args, out: outputs.append(out.detach())).remove)
        yield outputs


def gradients_at_inputs(
    decomposition: ResidualDecomposition,
    layer: int,
    x: Float[Tensor, "rows n d_model"],
    outputs: Sequence[Float[Tensor, "rows n _"]],
    slopes: Sequence[Float[Tensor, "rows n_heads n _"]],
) -> Iterator[Float[Tensor, "n_heads rows n d_model"]]:
    """The gradient at the input of the queries, keys and values of each head, from that at themselves by query head (``slopes``), in
    a layer with input ``x`` and ``outputs`` of ``projected``."""
    cut, n_heads = head_columns(decomposition, layer), decomposition.model.facts.n_heads
    if cut is None:
        yield from _through_whole_layer(decomposition, layer, x, slopes)
        return
    at_outputs = _at_projections(decomposition, layer, cut, torch.cat(list(outputs), -1), slopes)
    for gradient, (weight, _) in zip(at_outputs, cut.parameters(n_heads), strict=True):
        at_normed = torch.bmm(gradient.flatten(1, 2), weight.mT).view(n_heads * len(x), *x.shape[1:])
        with torch.enable_grad():
            entering = x.detach().repeat(n_heads, 1, 1).requires_grad_()
            normed = _normed(decomposition, layer, cut, entering)
        yield torch.autograd.grad(normed, entering, at_normed)[0].unflatten(0, (n_heads, -1))


def _at_projections(
    decomposition: ResidualDecomposition, layer: int, cut: HeadColumns, outputs: Tensor, slopes: Sequence[Tensor]
) -> list[Float[Tensor, "n_heads rows n d"]]:
    """The gradient at the outputs of the projections, for the columns of each head; query heads that share keys and values come one
    after another."""
    found: list[list[Tensor]] = [[], [], []]
    with torch.enable_grad():
        leaf = outputs.requires_grad_()
        with cut.returning(leaf):
            made = decomposition.qkv(
                layer, outputs.new_zeros(()).expand(*outputs.shape[:2], decomposition.weights[0].shape[-1])
            )
    for own, part, columns, slope in zip(found, (made.q, made.k, made.v), cut.columns, slopes, strict=True):
        group = slope.shape[1] // part.shape[1]
        for member in range(group):
            gradient = torch.autograd.grad(part, leaf, slope[:, member::group], retain_graph=True)[0]
            own.append(gradient[..., columns].movedim(2, 0))
    return [torch.stack(own, 1).flatten(0, 1) for own in found]


def _through_whole_layer(
    decomposition: ResidualDecomposition, layer: int, x: Tensor, slopes: Sequence[Tensor]
) -> Iterator[Float[Tensor, "n_heads rows n d_model"]]:
    with torch.enable_grad():
        entering = x.detach().requires_grad_()
        made = decomposition.qkv(layer, entering)
    for part, slope in zip((made.q, made.k, made.v), slopes, strict=True):
        n_heads, group = slope.shape[1], slope.shape[1] // part.shape[1]
        with torch.enable_grad():
            read = [part[:, head // group] for head in range(n_heads)]
        yield torch.stack(
            [torch.autograd.grad(read[head], entering, slope[:, head], retain_graph=True)[0] for head in range(n_heads)]
        )


def _own_columns(decomposition: ResidualDecomposition, layer: int, inputs: Tensor, cut: HeadColumns) -> AttentionInputs:
    n_heads, rows, n = inputs.shape[1:4]
    normed = _normed(decomposition, layer, cut, inputs.flatten(0, 2)).view(3, n_heads, rows * n, -1)
    group = max(n_heads // len(columns) for columns in cut.columns)
    outputs = normed.new_zeros(group, rows, n, sum(map(_width, cut.projections)))
    for own, columns, (weight, bias) in zip(normed, cut.columns, cut.parameters(n_heads), strict=True):
        made = torch.baddbmm(bias, own, weight).view(len(columns), -1, rows, n, weight.shape[-1])
        for member in range(made.shape[1]):  # query heads that share keys and values run in rows of their own
            outputs[member][..., columns] = made[:, member].movedim(0, 2)
    with cut.returning(outputs.flatten(0, 1)):
        call = decomposition.qkv(layer, inputs.new_zeros(()).expand(group * rows, n, inputs.shape[-1]))

    def by_query_head(t: Tensor) -> Tensor:
        members = t.unflatten(0, (group, rows))[: n_heads // t.shape[1]]
        return members.movedim(0, 2).flatten(1, 2)

    return replace(call, q=by_query_head(call.q), k=by_query_head(call.k), v=by_query_head(call.v))


def _whole_layers(decomposition: ResidualDecomposition, layer: int, inputs: Tensor) -> AttentionInputs:
    parts: list[list[Tensor]] = [[], [], []]
    for i, own in enumerate(inputs):
        for head, x in enumerate(own):
            call = decomposition.qkv(layer, x)
            t = (call.q, call.k, call.v)[i]
            parts[i].append(t[:, head * t.shape[1] // inputs.shape[1]])
    return replace(call, **{part: torch.stack(own, 1) for part, own in zip(QKV, parts, strict=True)})


def _normed(
    decomposition: ResidualDecomposition, layer: int, cut: HeadColumns, x: Float[Tensor, "rows n d_model"]
) -> Float[Tensor, "rows n d_model"]:
    """What the projections of a layer read."""

    def leave(module: nn.Module, args: tuple) -> None:
        raise LeaveModule(args[0])

    with cut.projections[0].register_forward_pre_hook(leave):
        try:
            call_block(decomposition.layout.blocks[layer], decomposition.clean, layer, x)
        except LeaveModule as left:
            return left.found
    raise FastPathUnavailable(f"{decomposition.model.facts.architecture}: attention of layer {layer} is never called")


def _find_columns(decomposition: ResidualDecomposition, layer: int) -> HeadColumns | None:
    """The columns on which each head's queries, keys and values depend; None where heads share some, or projections do not read the
    same input."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple, out: Tensor) -> None:
        calls.append((module, args[0], out))

    with ExitStack() as stack:
        for module in decomposition.layout.attentions[layer].modules():
            if getattr(getattr(module, "weight", None), "ndim", 0) == 2:
                stack.callback(module.register_forward_hook(note).remove)
        decomposition.qkv(layer, decomposition.clean.residual[layer])
    projections = tuple(module for module, _, _ in calls)
    if not calls or len({*projections}) < len(calls) or any(x is not calls[0][1] for _, x, _ in calls):
        return None
    try:
        widths = [_width(p) for p in projections]
    except FastPathUnavailable:
        return None
    if widths != [out.shape[-1] for _, _, out in calls]:
        return None
    with torch.inference_mode(False), torch.enable_grad():
        arguments = [map_leaves(_differentiable, given) for given in decomposition.clean.arguments]
        own = replace(decomposition, clean=replace(decomposition.clean, arguments=arguments))
        leaf = torch.cat([out.clone() for _, _, out in calls], -1).requires_grad_()
        with HeadColumns(projections, ()).returning(leaf):
            made = own.qkv(layer, own.clean.residual[layer].clone())
        columns = [_columns_by_head(part, leaf) for part in (made.q, made.k, made.v)]
    if any(own is None for own in columns):
        return None
    return HeadColumns(projections, tuple(own for own in columns if own is not None))


def _differentiable(value: Any) -> Any:
    """A tensor made in inference mode as one that can be used in a pass with gradients."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _columns_by_head(
    part: Float[Tensor, "rows head n d"], leaf: Float[Tensor, "rows n total"]
) -> Int[Tensor, "head own"] | None:
    noise, found = torch.randn(part[:, 0].shape, generator=torch.Generator().manual_seed(0)).to(part), []
    for head in range(part.shape[1]):
        gradient = torch.autograd.grad(part[:, head], leaf, noise, retain_graph=True)[0]
        found.append(gradient.flatten(0, 1).any(0).nonzero()[:, 0])
    disjoint = len(torch.cat(found).unique()) == part.shape[1] * part.shape[-1]
    return torch.stack(found) if disjoint and all(len(own) == part.shape[-1] for own in found) else None


def _proven(decomposition: ResidualDecomposition, layer: int, cut: HeadColumns) -> bool:
    """Whether heads that read two inputs in turn are those of the whole layer with either."""
    n_heads, x = decomposition.model.facts.n_heads, decomposition.clean.residual[layer]
    sources = (x, x.flip(-1))
    which = torch.arange(3)[:, None] + torch.arange(n_heads)
    inputs = torch.stack([torch.stack([sources[i % 2] for i in row]) for row in which.tolist()])
    found, whole = _own_columns(decomposition, layer, inputs, cut), [decomposition.qkv(layer, x) for x in sources]
    for i, part in enumerate(QKV):
        expected = [decomposition.per_query_head(call)[part] for call in whole]
        for head in range(n_heads):
            right, own = expected[(i + head) % 2][:, head], getattr(found, part)[:, head]
            if not float((own - right).abs().max()) <= rounding(x.dtype) * float(expected[0].abs().max()):
                return False
    return True
