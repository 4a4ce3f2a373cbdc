"""Many changed runs in one batch, each resumed from the clean pass at the first layer that it changes.

Changing a head of layer l leaves all earlier blocks unchanged. The changed runs are rows of one batch: a block is entered by
the rows changed in lower layers, which run its attention, and by the rows changed here, whose attention output is the clean one
plus the difference that the intervention makes. Blocks are the model's own: sequential, parallel or post-norm.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.engine.attention.attention_interface import (
    AttentionInputs,
    LeaveModule,
    apply_softcap,
    attend,
    attention_hooks,
    beside_sink,
    scaled_dot_product,
    upcast,
)
from interp.engine.attention.head_changes import changes_in_layer
from interp.engine.forward.run import at_answer
from interp.engine.sweep.change_patterns import change_patterns
from interp.engine.sweep.clean_pass import CleanPass, map_leaves
from interp.engine.sweep.fused_ops import replacing_forward
from interp.engine.sweep.variant import Variant, first_layer, reads_whole_text
from interp.interventions import InterventionContext
from interp.models.model import Layout, Model
from interp.models.value_and_output_weights import output_rows


def resume_variants(
    model: Model, clean: CleanPass, variants: Sequence[Variant]
) -> Float[Tensor, "n_variants batch *n_tokens d_model"]:
    """The residual that predicts the answer, or each of its tokens, under each variant."""
    _, layout = model.known_parts
    layers = [first_layer(variant) for variant in variants]
    order = sorted(range(len(variants)), key=layers.__getitem__)
    starting = [[v for v, first in zip(variants, layers, strict=True) if first == layer] for layer in range(len(layout.blocks))]
    result = resume_from_layer(
        model,
        clean,
        min(layers),
        partial(_changed_attention, layout, clean, starting),
        active_variants=lambda layer: list(chain.from_iterable(starting[:layer])),
    )
    return result.unflatten(0, (len(variants), -1))[torch.tensor(order).argsort().to(result.device)]


def resume_from_layer(
    model: Model,
    clean: CleanPass,
    first: int,
    changed_attention: Callable[[int], Float[Tensor, "rows n d_model"]],
    changed_residual: Callable[[int], Float[Tensor, "rows n d_model"] | None] = lambda layer: None,
    active_variants: Callable[[int], Sequence[Variant]] = lambda layer: (),
) -> Float[Tensor, "rows *n_tokens d_model"]:
    """The final residual of many changed runs, ordered by the layer at which they start (``first`` or above).

    ``changed_residual(layer)`` are changed residuals that enter a block (at ``n_layers``: leave the last one);
    ``changed_attention(layer)`` are changed attention outputs of runs that are clean up to this layer. Rows are repetitions of
    the batch. ``active_variants(layer)`` are the variants already running, which may change this layer as well.
    """
    (hf, layout), x = model.known_parts, clean.residual[0][:0]
    top = len(layout.blocks) - 1
    hooks = {
        module: partial(_attend, clean, layer, layer == top, active_variants) for layer, module in enumerate(layout.attentions)
    }
    with attention_hooks(hf, hooks):
        for layer in range(first, len(layout.blocks)):
            if (more := changed_residual(layer)) is not None:
                x = torch.cat([x, more])
            step = _last_block if layer == top else _block
            x = step(layout, clean, layer, x, active_variants(layer), changed_attention(layer))
    more = changed_residual(len(layout.blocks))
    n_tokens = clean.n_answer_tokens
    return at_answer(x, n_tokens) if more is None else torch.cat([at_answer(x, n_tokens), at_answer(more, n_tokens)])


def _block(layout: Layout, clean: CleanPass, layer: int, x: Tensor, active: Sequence[Variant], fixed: Tensor) -> Tensor:
    def edit_z(projection: nn.Module, args: tuple) -> tuple:
        return (_apply_to_z(args[0], clean, layer, active), *args[1:])

    entering = clean.residual[layer].repeat(len(fixed) // len(clean.example_ids), 1, 1)
    with layout.outputs[layer].register_forward_pre_hook(edit_z), fixed_attention(layout, clean, layer, len(x), fixed):
        return call_block(layout.blocks[layer], clean, layer, torch.cat([x, entering]))


def _last_block(layout: Layout, clean: CleanPass, layer: int, x: Tensor, active: Sequence[Variant], fixed: Tensor) -> Tensor:
    """As ``_block``, for the positions that predict the answer only: the readout needs no other."""
    n = clean.n_answer_tokens
    entering = clean.residual[layer][:, -n:].repeat(len(fixed) // len(clean.example_ids), 1, 1)
    fixed = fixed[:, -n:]
    if len(x):
        try:
            with nullcontext() if reads_whole_text(active, layer) else _last_queries(layout.attentions[layer], n):
                call_block(layout.blocks[layer], clean, layer, x)
        except LeaveModule as left:
            z = _apply_to_z(left.found.transpose(1, 2).flatten(2), clean, layer, active)
            fixed = torch.cat([layout.outputs[layer](z), fixed])
    with fixed_attention(layout, clean, layer, 0, fixed):
        return call_block(layout.blocks[layer], clean, layer, torch.cat([x[:, -n:], entering]))


def _last_queries(attention: nn.Module, n: int) -> AbstractContextManager[None]:
    """Within the context, queries with a projection of their own are projected at the last ``n`` positions alone; in the place of the
    others stands the first of these."""
    projection = getattr(attention, "q_proj", None)
    if not isinstance(projection, nn.Linear):
        return nullcontext()
    weight, bias = projection.weight, projection.bias

    def project(x: Tensor) -> Tensor:
        last = F.linear(x[:, -n:], weight, bias)
        return last.expand(*x.shape[:-1], -1) if n == 1 else torch.cat([last[:, :1].expand(-1, x.shape[1] - n, -1), last], 1)

    return replacing_forward(projection, project)


def _changed_attention(layout: Layout, clean: CleanPass, starting: Sequence[list[Variant]], layer: int) -> Tensor:
    """Attention output of the variants that start in this layer, [n_variants*batch n d_model]."""
    new, was = starting[layer], clean.attn_out[layer]
    out = was.new_empty(len(new), len(was) * clean.n_positions, was.shape[-1])
    for changed, variant in zip(out, new, strict=True):
        edits = changes_in_layer(variant, layer)
        z = torch.cat([clean.change(i, head) for i, head in edits], -1)
        w_o = torch.cat([output_rows(layout.outputs[layer], head.head, clean.z[layer].shape[-1]) for _, head in edits])
        torch.addmm(was.flatten(0, 1), z.flatten(0, 1), w_o, out=changed)
    return out.view(-1, *was.shape[1:])


def _attend(
    clean: CleanPass, layer: int, last: bool, active_variants: Callable[[int], Sequence[Variant]], call: AttentionInputs
) -> Tensor:
    """Attention for the rows that run a block; in the last block only for the queries that predict the answer, and out of the block."""
    z = attend_resumed(clean, layer, replace(call, q=call.q[:, :, -clean.n_answer_tokens :]) if last else call)
    change_patterns(z, clean, layer, active_variants(layer), call)
    if last:
        raise LeaveModule(z)
    return z


def attend_resumed(clean: CleanPass, layer: int, call: AttentionInputs) -> Float[Tensor, "rows head n d_value"]:
    """Attention of the last ``n`` positions of changed runs, masked as in the clean run. Keys and values of the positions before
    those of the clean pass are its own; ``call`` may hold one key for each query head."""
    mask = clean.mask[layer]
    mask = None if mask is None else mask[:, :, -call.q.shape[2] :]
    if not clean.n_before:
        return attend(replace(call, mask=mask))
    assert mask is not None
    copies = call.k.shape[1] // clean.k_before[layer].shape[1]
    k, v = (t if copies == 1 else t.repeat_interleave(copies, 1) for t in (clean.k_before[layer], clean.v_before[layer]))
    return attend_after(call, k, v, mask)


def attend_after(
    call: AttentionInputs,
    k_before: Float[Tensor, "prompts kv_head before d_head"],
    v_before: Float[Tensor, "prompts kv_head before d_value"],
    visible: Bool[Tensor, "some 1 n all"],
) -> Float[Tensor, "rows head n d_value"]:
    """Attention of the last positions of many changed runs that share keys and values of the first positions.

    ``call`` holds ``n_variants * n_prompts`` rows, variants outermost, with queries of the last ``n`` positions. ``k_before``
    and ``v_before`` come from the clean pass and are copied per variant only if they are short.
    """
    (rows, n_heads, n, d_head), d_value = call.q.shape, call.v.shape[-1]
    n_prompts, n_kv, before = k_before.shape[:3]
    n_variants, group = rows // n_prompts, n_heads // n_kv
    if call.softcap is None and call.sinks is None and before <= call.k.shape[2]:  # one fused step on copies is cheaper here
        k, v = (torch.cat([old.repeat(n_variants, 1, 1, 1), new], 2) for old, new in ((k_before, call.k), (v_before, call.v)))
        seen = visible.repeat(n_variants if len(visible) > 1 else 1, 1, 1, 1)
        return scaled_dot_product(replace(call, k=k, v=v), call.q, seen, False)

    def by_prompt(x: Tensor) -> Tensor:  # [rows kv ...] -> [prompts kv variants ...]
        return x.unflatten(0, (n_variants, n_prompts)).movedim(0, 2)

    q = call.q.unflatten(1, (n_kv, group))  # rows kv group n d
    shared = k_before @ by_prompt(q).reshape(n_prompts, n_kv, -1, d_head).mT
    shared = shared.view(n_prompts, n_kv, before, n_variants, group, n)
    own = (call.k @ q.flatten(2, 3).mT).unflatten(-1, (group, n))  # rows kv key group n
    # keys come before queries: a softmax over few keys is ten times faster where they are not the last dimension
    scores = upcast(torch.cat([shared, by_prompt(own).transpose(2, 3)], 2)) * call.scale
    unseen = ~visible.mT[:, :, :, None, None]
    scores = apply_softcap(scores, call.softcap).masked_fill(unseen, -torch.inf)
    sinks = None if call.sinks is None else call.sinks.float().view(1, n_kv, 1, 1, group, 1)
    weights = beside_sink(scores, sinks, 2).to(call.v.dtype)
    seen = (weights[:, :, :before].flatten(3).mT @ v_before).view(n_prompts, n_kv, n_variants, group, n, d_value).movedim(2, 0)
    on_own = weights[:, :, before:].movedim(3, 0).reshape(rows, n_kv, -1, group * n).mT
    new = on_own * call.v if call.v.shape[2] == 1 else on_own @ call.v  # many products of single rows are slow
    return (seen.reshape(rows, n_kv, group, n, d_value) + new.view(rows, n_kv, group, n, d_value)).flatten(1, 2)


def call_block(block: nn.Module, clean: CleanPass, layer: int, x: Tensor) -> Tensor:
    """The residual after a block with input ``x`` [rows n d_model], whose rows are repetitions of the batch."""
    n_prompts = len(clean.example_ids)

    def repeated(value: Any) -> Any:
        per_prompt = isinstance(value, Tensor) and value.dim() > 1 and len(value) == n_prompts > 1
        return value.repeat(len(x) // n_prompts, *[1] * (value.dim() - 1)) if per_prompt else value

    args, kwargs = map_leaves(repeated, clean.arguments[layer])
    output = block(x, *args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def fixed_attention(layout: Layout, clean: CleanPass, layer: int, n_running: int, fixed: Tensor) -> Iterator[None]:
    """Within the context, attention runs the first ``n_running`` rows only; the output of the others is ``fixed``."""
    module = layout.attentions[layer]
    inner, n_rows = module.forward, n_running + len(fixed)

    def running(value: Any) -> Any:
        return value[:n_running] if isinstance(value, Tensor) and value.dim() > 1 and len(value) == n_rows else value

    def forward(*arguments: Any, **named: Any) -> Any:
        out = fixed
        if n_running:
            args, kwargs = map_leaves(running, (arguments, named))
            output = inner(*args, **kwargs)
            out = torch.cat([output[0] if isinstance(output, tuple) else output, fixed])
        n_returned = clean.n_returned[layer]
        return (out, *[None] * (n_returned - 1)) if n_returned else out

    with replacing_forward(module, forward):
        yield


def _apply_to_z(z: Tensor, clean: CleanPass, layer: int, active_variants: Sequence[Variant]) -> Tensor:
    """The merged z [rows n heads*d_head] of active variants after their interventions in this layer, at the last ``n`` positions."""
    changes = [(v, i, head) for v, variant in enumerate(active_variants) for i, head in changes_in_layer(variant, layer)]
    edits = [(v, i, head) for v, i, head in changes if not i.inside_attention]
    z = z.clone() if edits else z
    n, d_head = z.shape[1], clean.z[layer].shape[-1]
    for v, intervention, head in edits:
        rows = slice(v * len(clean.example_ids), (v + 1) * len(clean.example_ids))
        part = slice(head.head * d_head, (head.head + 1) * d_head)
        here = clean.position_mask(intervention.positions)[:, -n:]
        new = intervention.apply(z[rows, :, part], InterventionContext(head, clean.example_ids, clean.positions[:, -n:]))
        z[rows, :, part] = torch.where(here, new, z[rows, :, part])
    return z
