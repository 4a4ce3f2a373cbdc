"""Effects of corrupted queries, keys, values and z of heads: on z, to first order on the outcome, exactly on the last residual.

z under a changed query or key is computed exactly, softmax included, and only the effect of z is linearised (the QK fix of
AtP*, arXiv 2403.00745): ``(new z - z) . d outcome / d z`` equals the sum over keys of the change of the weights times the
gradient at the weights. It is exact for the direct effect of z on the logits, and fails where a later softmax is saturated.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.attention.attention_interface import AttentionInputs, apply_softcap, upcast
from interp.engine.edges.residual_decomposition import ResidualDecomposition
from interp.engine.sweep.resume_from_layer import resume_from_layer
from interp.graph import QKV

NODE_KINDS = (*QKV, "z")


def corrupted_z(
    decomposition: ResidualDecomposition, layer: int, part: str, where: Bool[Tensor, "#batch n"]
) -> Float[Tensor, "batch n n_heads d_head"]:
    """z of a layer's heads with ``part`` of each (``q``, ``k``, ``v`` or ``z``) from the corrupted prompt at ``where``."""
    own, other, call = _parts(decomposition, layer)
    if part == "z":
        z = decomposition.attend(layer, *(other[p] for p in QKV), like=call)
        return torch.where(where[:, :, None, None], z, decomposition.clean.z[layer])
    own[part] = torch.where(where[:, None, :, None], other[part], own[part])
    return decomposition.attend(layer, *(own[p] for p in QKV), like=call)


def qk_fix_estimates(
    decomposition: ResidualDecomposition,
    layer: int,
    part: str,
    where: Bool[Tensor, "#batch n"],
    gradients: Float[Tensor, "passes batch n n_heads d_head"],
) -> Float[Tensor, "passes n_heads batch"]:
    """First-order effect of ``corrupted_z`` on the outcome, for each of several gradients at z."""
    change = corrupted_z(decomposition, layer, part, where) - decomposition.clean.z[layer]
    return torch.einsum("pbnhd,bnhd->phb", upcast(gradients), upcast(change))


def atp_estimates(
    decomposition: ResidualDecomposition,
    layer: int,
    part: str,
    where: Bool[Tensor, "#batch n"],
    gradients: Float[Tensor, "passes batch n n_heads d_head"],
) -> Float[Tensor, "passes n_heads batch"]:
    """As ``qk_fix_estimates``, to first order in the part itself: plain attribution patching, which linearises the softmax."""
    if part == "z":
        return qk_fix_estimates(decomposition, layer, part, where, gradients)
    return torch.stack([(_linear(decomposition, layer, part, g) * where[:, None]).sum(-1).T for g in gradients])


def position_estimates(
    decomposition: ResidualDecomposition, layer: int, head: int, part: str, gradient: Float[Tensor, "batch n n_heads d_head"]
) -> Float[Tensor, "batch n"]:
    """``qk_fix_estimates`` for one head with ``part`` changed at one position only, for every position."""
    if part == "k":
        return _key_estimates(decomposition, layer, head, gradient)
    if part == "v":
        return _linear(decomposition, layer, part, gradient)[:, head]
    everywhere = torch.ones_like(decomposition.clean.positions, dtype=torch.bool)
    change = corrupted_z(decomposition, layer, part, everywhere) - decomposition.clean.z[layer]
    return (upcast(gradient) * upcast(change))[:, :, head].sum(-1)


def _linear(
    decomposition: ResidualDecomposition, layer: int, part: str, gradient: Float[Tensor, "batch n n_heads d_head"]
) -> Float[Tensor, "batch n_heads n"]:
    """The change of a part times the gradient at every position."""
    own, other, call = _parts(decomposition, layer)
    with torch.enable_grad():
        leaf = own[part].detach().clone().requires_grad_()
        z = decomposition.attend(layer, *({**own, part: leaf}[p] for p in QKV), like=call)
        slope = torch.autograd.grad((z * gradient).sum(), leaf)[0]
    return (upcast(slope) * upcast(other[part] - own[part])).sum(-1)


def _key_estimates(
    decomposition: ResidualDecomposition, layer: int, head: int, gradient: Float[Tensor, "batch n n_heads d_head"]
) -> Float[Tensor, "batch n"]:
    """For one key changed at a time, with weights A, gradient G at them and ``E = exp(change of the score) - 1``, the sum over
    queries of ``A E / (1 + A E) (G - sum A G)``; written as (new A - A) (G - mean G of the other keys), stable for A near 1."""
    own, other, call = _parts(decomposition, layer)
    clean = decomposition.clean
    if call.sinks is not None:
        raise ValueError(
            f"{decomposition.model.facts.name} has learned sinks, for which keys have no estimate: use method 'exact'."
        )
    shared = head * clean.k_before[layer].shape[1] // decomposition.model.facts.n_heads
    keys, new_keys = (torch.cat([clean.k_before[layer][:, shared], side["k"][:, head]], 1) for side in (own, other))
    values = torch.cat([clean.v_before[layer][:, shared], own["v"][:, head]], 1)
    mask = clean.mask[layer]
    causal = torch.ones(clean.n_positions, keys.shape[1], dtype=torch.bool, device=keys.device).tril(clean.n_before)
    seen = causal if mask is None else mask[:, 0]
    scores, new_scores = (
        apply_softcap(upcast(own["q"][:, head]) @ upcast(k).mT * call.scale, call.softcap).masked_fill(~seen, -torch.inf)
        for k in (keys, new_keys)
    )
    slopes = upcast(gradient[:, :, head]) @ upcast(values).mT
    least, rest = slopes.amin(-1, keepdim=True), _logsumexp_of_others(scores)
    others = _logsumexp_of_others(scores + (slopes - least).log())
    elsewhere = least + (others - rest).exp().nan_to_num(0)  # undefined where there is one key
    weights, new_weights = ((s - rest).sigmoid() for s in (scores, new_scores))
    return ((new_weights - weights) * (slopes - elsewhere)).sum(1)[:, -clean.n_positions :]


class ResidualChange(NamedTuple):
    """``added`` [batch n d_model] to the residual that enters the block of ``layer`` (at ``n_layers``: leaves the last) or, if
    ``inside``, to the attention output of this layer."""

    layer: int
    inside: bool
    added: Tensor


def resume_changes(
    decomposition: ResidualDecomposition, changes: Sequence[ResidualChange]
) -> Float[Tensor, "n_changes batch d_model"]:
    """The final residual under each change, with all later activations recomputed."""
    order, step = sorted(range(len(changes)), key=lambda i: changes[i][:2]), decomposition.runs_per_batch
    parts = ([changes[i] for i in order[first : first + step]] for first in range(0, len(order), step))
    return torch.cat([_resume(decomposition, part) for part in parts])[torch.tensor(order).argsort()]


def _resume(decomposition: ResidualDecomposition, changes: Sequence[ResidualChange]) -> Tensor:
    clean, n_layers = decomposition.clean, decomposition.model.facts.n_layers

    def here(layer: int, inside: bool, base: Tensor) -> list[Tensor]:
        return [base + change.added for change in changes if change[:2] == (layer, inside)]

    def changed_attention(layer: int) -> Tensor:
        return torch.cat([clean.attn_out[layer][:0], *here(layer, True, clean.attn_out[layer])])

    def changed_residual(layer: int) -> Tensor | None:
        found = here(layer, False, clean.final_residual[:, None] if layer == n_layers else clean.residual[layer])
        return torch.cat(found) if found else None

    rows = resume_from_layer(decomposition.model, clean, changes[0].layer, changed_attention, changed_residual)
    return rows.unflatten(0, (-1, decomposition.batch))


def _parts(decomposition: ResidualDecomposition, layer: int) -> tuple[dict[str, Tensor], dict[str, Tensor], AttentionInputs]:
    """Queries, keys and values of every query head on the clean and on the corrupted prompts, [batch head n d_head]."""
    corrupted = decomposition.corrupted[: decomposition.n_writers_before(layer)].sum(0) + decomposition.biases[:layer].sum(0)
    calls = [decomposition.qkv(layer, x) for x in (decomposition.clean.residual[layer], corrupted)]
    return decomposition.per_query_head(calls[0]), decomposition.per_query_head(calls[1]), calls[0]


def _logsumexp_of_others(x: Float[Tensor, "batch n key"]) -> Float[Tensor, "batch n key"]:
    """logsumexp over all other keys, accurate even where one key dominates."""
    before, after = x.logcumsumexp(-1), x.flip(-1).logcumsumexp(-1).flip(-1)
    none = torch.full_like(x[..., :1], -torch.inf)
    return torch.logaddexp(torch.cat([none, before[..., :-1]], -1), torch.cat([after[..., 1:], none], -1))
