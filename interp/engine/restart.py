"""Many changed runs at once, each restarted from the clean run at the layer where it is first changed.

The change of a head of layer l leaves every earlier block as it was. The changed runs are rows of one batch: a block is entered by the
rows changed further down, which run its attention, and by the rows changed here, whose attention output is the clean one plus
what the intervention adds. Blocks are the model's own modules, so sequential, parallel and post-norm blocks need no code here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.engine.attention import Call, attend, attend_after, reading
from interp.engine.clean import CleanRun
from interp.engine.positions import touched
from interp.heads import Head
from interp.interventions import Intervention, Place
from interp.models.model import Layout, Model

Variant = tuple[Intervention, ...]


def first_layer(variant: Variant) -> int:
    """The lowest layer that the variant changes."""
    return min(head.layer for intervention in variant for head in intervention.heads)


def restartable(variant: Variant) -> bool:
    """Whether a variant can be restarted: patterns may be changed in its first layer only, where the clean rows still hold."""
    first = first_layer(variant)
    return all(i.site == "z" or all(head.layer == first for head in i.heads) for i in variant)


def restart(model: Model, clean: CleanRun, variants: Sequence[Variant]) -> Float[Tensor, "n_variants batch d_model"]:
    """The residual that predicts the answer under each variant, [n_variants batch d_model]."""
    layout = model.layout
    assert layout is not None and model.hf is not None
    order = sorted(range(len(variants)), key=lambda i: first_layer(variants[i]))
    active: list[Variant] = []
    x = clean.residual[0].new_empty((0, *clean.residual[0].shape[1:]))
    with reading(model.hf, {module: _reader(clean, layer) for layer, module in enumerate(layout.attentions)}):
        for layer in range(first_layer(variants[order[0]]), len(layout.blocks)):
            new = [variants[i] for i in order[len(active) :] if first_layer(variants[i]) == layer]
            step = _last_block if layer == len(layout.blocks) - 1 else _block
            x = step(layout, clean, layer, x, active, new)
            active += new
    result = x.unflatten(0, (len(variants), -1))[:, :, -1]
    return result[torch.tensor(order).argsort().to(result.device)]


def _block(layout: Layout, clean: CleanRun, layer: int, x: Tensor, active: list[Variant], new: list[Variant]) -> Tensor:
    entering = clean.residual[layer].expand(len(new), *clean.residual[layer].shape).flatten(0, 1)
    fixed = _changed_attention(layout, clean, layer, new)
    with _editing_z(layout.outputs[layer], clean, layer, active), _attention(layout, clean, layer, len(x), fixed):
        return _call(layout.blocks[layer], clean, layer, torch.cat([x, entering]))


def _last_block(layout: Layout, clean: CleanRun, layer: int, x: Tensor, active: list[Variant], new: list[Variant]) -> Tensor:
    """As ``_block``, but only the last position goes through what follows attention: nothing else is read from here."""
    entering = clean.residual[layer].expand(len(new), *clean.residual[layer].shape).flatten(0, 1)
    fixed = _changed_attention(layout, clean, layer, new)[:, -1:]
    if len(x):
        caught: list[Tensor] = []
        with _editing_z(layout.outputs[layer], clean, layer, active), _stopping_after(layout.attentions[layer], caught):
            try:
                _call(layout.blocks[layer], clean, layer, x)
            except _Enough:
                pass
        fixed = torch.cat([caught[0][:, -1:], fixed])
    with _attention(layout, clean, layer, 0, fixed):
        return _call(layout.blocks[layer], clean, layer, torch.cat([x, entering])[:, -1:])


def _changed_attention(layout: Layout, clean: CleanRun, layer: int, new: list[Variant]) -> Tensor:
    """Attention output of the variants that start here, [len(new)*batch n d_model]."""
    out = clean.attn_out[layer].repeat(len(new), *(1 for _ in clean.attn_out[layer].shape[1:]))
    size = len(clean.rows)
    for v, variant in enumerate(new):
        for intervention, head in _at(variant, layer):
            w_o = output_rows(layout.outputs[layer], head.head, clean.z[layer].shape[-1])
            out[v * size : (v + 1) * size] += clean.change(intervention, head) @ w_o
    return out


def output_rows(projection: nn.Module, head: int, d_head: int) -> Float[Tensor, "d_head d_model"]:
    """Rows of W_O that one head writes through, [d_head d_model]."""
    weight: Any = projection.weight
    part = slice(head * d_head, (head + 1) * d_head)
    return weight[:, part].T if isinstance(projection, nn.Linear) else weight[part]


def _reader(clean: CleanRun, layer: int) -> Callable[[Call], Tensor]:
    def read(call: Call) -> Tensor:
        mask = clean.mask[layer]
        if clean.start == 0:
            return attend(Call(call.q, call.k, call.v, mask, call.scale, call.softcap))
        if mask is None:
            n = clean.length - clean.start
            mask = torch.ones(n, clean.length, dtype=torch.bool, device=call.q.device).tril(clean.start)[None, None]
        return attend_after(call, clean.k_before[layer], clean.v_before[layer], mask)

    return read


def _call(block: nn.Module, clean: CleanRun, layer: int, x: Tensor) -> Tensor:
    args, kwargs = clean.arguments[layer]
    output = block(x, *args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _attention(layout: Layout, clean: CleanRun, layer: int, n_running: int, fixed: Tensor) -> Iterator[None]:
    """The attention module runs the first ``n_running`` rows; the others get ``fixed``."""
    module = layout.attentions[layer]
    inner = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = fixed
        if n_running:
            if args:
                args = (args[0][:n_running], *args[1:])
            else:
                kwargs["hidden_states"] = kwargs["hidden_states"][:n_running]
            output = inner(*args, **kwargs)
            out = torch.cat([output[0] if isinstance(output, tuple) else output, fixed])
        n_returned = clean.n_returned[layer]
        return (out, *[None] * (n_returned - 1)) if n_returned else out

    with _replacing_forward(module, forward):
        yield


class _Enough(Exception):
    pass


@contextmanager
def _stopping_after(module: nn.Module, caught: list[Tensor]) -> Iterator[None]:
    inner = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = inner(*args, **kwargs)
        caught.append(output[0] if isinstance(output, tuple) else output)
        raise _Enough

    with _replacing_forward(module, forward):
        yield


@contextmanager
def _replacing_forward(module: nn.Module, forward: Callable) -> Iterator[None]:
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


@contextmanager
def _editing_z(projection: nn.Module, clean: CleanRun, layer: int, active: list[Variant]) -> Iterator[None]:
    """Applies what variants from further down still change in this layer (pairs of heads) to their rows of z."""
    edits = [(v, i, head) for v, variant in enumerate(active) for i, head in _at(variant, layer)]
    if not edits:
        yield
        return

    def edit(module: nn.Module, args: tuple) -> tuple:
        d_head = clean.z[layer].shape[-1]
        z = args[0].clone()
        for v, intervention, head in edits:
            rows = slice(v * len(clean.rows), (v + 1) * len(clean.rows))
            part = slice(head.head * d_head, (head.head + 1) * d_head)
            here = touched(intervention.positions, clean.examples)[:, clean.start :, None].to(z.device)
            new = intervention.apply(z[rows, :, part], Place(head, clean.rows, clean.positions))
            z[rows, :, part] = torch.where(here, new, z[rows, :, part])
        return (z, *args[1:])

    handle = projection.register_forward_pre_hook(edit)
    try:
        yield
    finally:
        handle.remove()


def _at(variant: Variant, layer: int) -> Iterator[tuple[Intervention, Head]]:
    return ((i, head) for i in variant for head in i.heads if head.layer == layer)
