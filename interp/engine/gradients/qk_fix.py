"""Queries, keys, values and outputs of heads, shown what the corrupted prompt makes of them: what it does to the head's z, and to the end.

The z that a changed query or key leads to is computed, softmax included, and only what comes after is linearised (the QK fix of AtP*, arXiv
2403.00745): ``(new z - z) . d outcome / d z`` is the sum over keys of what the weights change by times the gradient at the weights. It is
exact for what z writes to the logits, and blind where a later softmax is saturated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.attention.attention_interface import Call, soften, wide
from interp.engine.edges.residual_decomposition import Stream
from interp.engine.sweep.resume_from_layer import climb
from interp.graph import PARTS

NODES = (*PARTS, "z")


def changed_z(
    stream: Stream, layer: int, part: str, where: Bool[Tensor, "#batch n"]
) -> Float[Tensor, "batch n n_heads d_head"]:
    """z of a layer's heads when ``part`` of each (``q``, ``k``, ``v`` or ``z``) is at ``where`` what the corrupted prompt makes of it."""
    own, other, call = _parts(stream, layer)
    if part == "z":
        z = stream.attend(layer, *(other[p] for p in PARTS), like=call)
        return torch.where(where[:, :, None, None], z, stream.clean.z[layer])
    own[part] = torch.where(where[:, None, :, None], other[part], own[part])
    return stream.attend(layer, *(own[p] for p in PARTS), like=call)


def estimates(
    stream: Stream,
    layer: int,
    part: str,
    where: Bool[Tensor, "#batch n"],
    gradients: Float[Tensor, "passes batch n n_heads d_head"],
) -> Float[Tensor, "passes n_heads batch"]:
    """What the change of ``changed_z`` adds to the outcome, to first order in z, for each of several gradients at z."""
    change = changed_z(stream, layer, part, where) - stream.clean.z[layer]
    return torch.einsum("pbnhd,bnhd->phb", wide(gradients), wide(change))


def linear_estimates(
    stream: Stream,
    layer: int,
    part: str,
    where: Bool[Tensor, "#batch n"],
    gradients: Float[Tensor, "passes batch n n_heads d_head"],
) -> Float[Tensor, "passes n_heads batch"]:
    """As ``estimates``, to first order in the part itself: plain attribution patching, with a linearised softmax."""
    if part == "z":
        return estimates(stream, layer, part, where, gradients)
    return torch.stack([(_linear(stream, layer, part, g) * where[:, None]).sum(-1).T for g in gradients])


def position_estimates(
    stream: Stream, layer: int, head: int, part: str, gradient: Float[Tensor, "batch n n_heads d_head"]
) -> Float[Tensor, "batch n"]:
    """What ``estimates`` gives for one head when ``part`` is changed at one position alone, for each position at once."""
    if part == "k":
        return _key_estimates(stream, layer, head, gradient)
    if part == "v":
        return _linear(stream, layer, part, gradient)[:, head]
    everywhere = torch.ones_like(stream.clean.positions, dtype=torch.bool)
    change = changed_z(stream, layer, part, everywhere) - stream.clean.z[layer]
    return (wide(gradient) * wide(change))[:, :, head].sum(-1)


def _linear(
    stream: Stream, layer: int, part: str, gradient: Float[Tensor, "batch n n_heads d_head"]
) -> Float[Tensor, "batch n_heads n"]:
    """The change of a part at every position times the gradient there."""
    own, other, call = _parts(stream, layer)
    with torch.enable_grad():
        leaf = own[part].detach().clone().requires_grad_()
        z = stream.attend(layer, *({**own, part: leaf}[p] for p in PARTS), like=call)
        slope = torch.autograd.grad((z * gradient).sum(), leaf)[0]
    return (wide(slope) * wide(other[part] - own[part])).sum(-1)


def _key_estimates(
    stream: Stream, layer: int, head: int, gradient: Float[Tensor, "batch n n_heads d_head"]
) -> Float[Tensor, "batch n"]:
    """For one key changed at a time, with weights A, gradient G at them and ``E = exp(change of the score) - 1``, the sum over queries of
    ``A E / (1 + A E) (G - sum A G)``; written as (new A - A) (G - mean G of the other keys), which holds where A is 1 but for rounding."""
    own, other, call = _parts(stream, layer)
    clean = stream.clean
    shared = head * clean.k_before[layer].shape[1] // stream.model.facts.n_heads
    keys, new_keys = (torch.cat([clean.k_before[layer][:, shared], side["k"][:, head]], 1) for side in (own, other))
    values = torch.cat([clean.v_before[layer][:, shared], own["v"][:, head]], 1)
    mask = clean.mask[layer]
    seen = (
        torch.ones(clean.n, keys.shape[1], dtype=torch.bool, device=keys.device).tril(clean.before)
        if mask is None
        else mask[:, 0]
    )
    scores, new_scores = (
        soften(wide(own["q"][:, head]) @ wide(k).mT * call.scale, call.softcap).masked_fill(~seen, -torch.inf)
        for k in (keys, new_keys)
    )
    slopes = wide(gradient[:, :, head]) @ wide(values).mT
    least, rest = slopes.amin(-1, keepdim=True), _others(scores)
    beyond = (_others(scores + (slopes - least).log()) - rest).exp().nan_to_num(0)  # no number where there is one key
    elsewhere = least + beyond
    weights, new_weights = ((s - rest).sigmoid() for s in (scores, new_scores))
    return ((new_weights - weights) * (slopes - elsewhere)).sum(1)[:, -clean.n :]


class Change(NamedTuple):
    """``added`` [batch n d_model] to the stream that enters the block of ``layer`` (at ``n_layers``: leaves the last) or, ``inside``, to
    what the attention of this layer writes."""

    layer: int
    inside: bool
    added: Tensor


def continued(stream: Stream, changes: Sequence[Change]) -> Float[Tensor, "n_changes batch d_model"]:
    """The residual that predicts the answer under each change, all that comes after computed anew."""
    order = sorted(range(len(changes)), key=lambda i: changes[i][:2])
    found: list[Tensor] = []
    for first in range(0, len(order), stream.together):
        found.append(_climbed(stream, [changes[i] for i in order[first : first + stream.together]]))
    return torch.cat(found)[torch.tensor(order).argsort()]


def _climbed(stream: Stream, changes: Sequence[Change]) -> Tensor:
    clean, n_layers = stream.clean, stream.model.facts.n_layers

    def here(layer: int, inside: bool, base: Tensor) -> list[Tensor]:
        return [base + change.added for change in changes if change[:2] == (layer, inside)]

    def starting(layer: int) -> Tensor:
        base = clean.attn_out[layer]
        return torch.cat([base[:0], *here(layer, True, base)])

    def joining(layer: int) -> Tensor | None:
        found = here(layer, False, clean.last[:, None] if layer == n_layers else clean.residual[layer])
        return torch.cat(found) if found else None

    return climb(stream.model, clean, changes[0].layer, starting, joining).unflatten(0, (-1, stream.batch))


def _parts(stream: Stream, layer: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Call]:
    """Queries, keys and values of every query head on the clean and on the corrupted prompts, [batch head n d_head]."""
    corrupted = stream.corrupted[: stream.before(layer)].sum(0) + stream.biases[:layer].sum(0)
    calls = [stream.qkv(layer, x) for x in (stream.clean.residual[layer], corrupted)]
    return stream.own_copies(calls[0]), stream.own_copies(calls[1]), calls[0]


def _others(x: Float[Tensor, "batch n key"]) -> Float[Tensor, "batch n key"]:
    """The logarithm of the sum over all other keys of what ``x`` is the logarithm of, however far one key leads."""
    before, after = x.logcumsumexp(-1), x.flip(-1).logcumsumexp(-1).flip(-1)
    none = torch.full_like(x[..., :1], -torch.inf)
    return torch.logaddexp(torch.cat([none, before[..., :-1]], -1), torch.cat([after[..., 1:], none], -1))
