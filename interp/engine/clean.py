"""The clean run that a sweep restarts from: everything that a change of some heads leaves as it was."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.engine.attention import Call, attend, reading
from interp.engine.positions import touched
from interp.heads import Head
from interp.interventions import Intervention, Place
from interp.models.model import Model
from interp.tasks.task import Example

BLOCK = 1 << 22  # attention weights held at once while a pattern is changed


class RoadClosed(Exception):
    """The model cannot be restarted in the middle; the message says why. Sweeps then take the hooked road."""


@dataclass(eq=False)
class CleanRun:
    """Activations of one batch of equally long prompts, from position ``start`` on (``n`` positions), by layer.

    ``residual`` and ``attn_out`` [batch n d_model] enter and leave a block's attention; ``z`` [batch n head d_head]; ``k_before`` and
    ``v_before`` [batch kv_head start d_head]; ``mask`` [1 1 n length] or None; ``changed`` holds z of heads whose pattern is
    changed; ``last`` [batch d_model] is the residual that predicts the answer; ``logits`` [batch d_vocab] the model's own.
    """

    examples: Sequence[Example]
    rows: Int[Tensor, " batch"]
    start: int
    residual: list[Tensor] = field(default_factory=list)
    attn_out: list[Tensor] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)
    k_before: list[Tensor] = field(default_factory=list)
    v_before: list[Tensor] = field(default_factory=list)
    mask: list[Tensor | None] = field(default_factory=list)
    arguments: list[tuple[tuple, dict[str, Any]]] = field(default_factory=list)
    n_returned: list[int] = field(default_factory=list)
    changed: dict[tuple[Intervention, Head], Tensor] = field(default_factory=dict)
    last: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def length(self) -> int:
        return len(self.examples[0].clean)

    @property
    def positions(self) -> Int[Tensor, " n"]:
        """The positions that are kept, [n]."""
        return torch.arange(self.start, self.length, device=self.rows.device)

    def change(self, intervention: Intervention, head: Head) -> Float[Tensor, "batch n d_head"]:
        """What the intervention adds to this head's z in the clean run, [batch n d_head]; 0 at untouched positions."""
        z = self.z[head.layer][:, :, head.head]
        if intervention.site == "pattern":
            new = self.changed[intervention, head]
        else:
            new = intervention.apply(z, Place(head, self.rows, self.positions))
        here = touched(intervention.positions, self.examples)[:, self.start :, None].to(z.device)
        return torch.where(here, new - z, 0)


def clean_run(
    model: Model, examples: Sequence[Example], rows: Sequence[int], start: int = 0, interventions: Sequence[Intervention] = ()
) -> CleanRun:
    """One forward pass over ``examples`` (equal lengths), keeping what a restart at position ``start`` needs.

    ``interventions`` at the pattern are evaluated here, a block of queries at a time, since they read the clean rows. Raises
    RoadClosed where the model's parts are not known or not called once a layer.
    """
    if model.hf is None or model.layout is None:
        raise RoadClosed(f"{model.facts.name}: the parts of a {model.facts.architecture} model are not known")
    layout, device = model.layout, model.device
    run = CleanRun(examples, torch.tensor(rows, device=device), start)
    tokens = torch.tensor([e.clean for e in examples], device=device)
    readers = {
        module: partial(_read, run, layer, [i for i in interventions if i.site == "pattern"])
        for layer, module in enumerate(layout.attentions)
    }
    with ExitStack() as stack:
        stack.enter_context(reading(model.hf, readers))
        for block, attention, output in zip(layout.blocks, layout.attentions, layout.outputs, strict=True):
            stack.callback(block.register_forward_pre_hook(partial(_enter, run), with_kwargs=True).remove)
            stack.callback(output.register_forward_pre_hook(partial(_keep_z, run, model.facts.n_heads)).remove)
            stack.callback(attention.register_forward_hook(partial(_leave, run)).remove)
        stack.callback(layout.blocks[-1].register_forward_hook(partial(_finish, run)).remove)
        run.logits = model.hf(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1]
    counts = {len(run.residual), len(run.z), len(run.attn_out), len(run.mask)}
    if counts != {model.facts.n_layers}:
        raise RoadClosed(f"{model.facts.architecture}: attention or its output projection is not called once a layer")
    return run


def _enter(run: CleanRun, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    hidden = args[0] if args else kwargs["hidden_states"]
    run.residual.append(_kept(run, hidden))
    rest = {name: _crop(value, run) for name, value in kwargs.items() if name != "hidden_states"}
    run.arguments.append((tuple(_crop(value, run) for value in args[1:]), rest))


def _keep_z(run: CleanRun, n_heads: int, module: nn.Module, args: tuple) -> None:
    run.z.append(_kept(run, args[0]).unflatten(-1, (n_heads, -1)))


def _leave(run: CleanRun, module: nn.Module, args: tuple, output: Any) -> None:
    out = output[0] if isinstance(output, tuple) else output
    run.attn_out.append(_kept(run, out))
    run.n_returned.append(len(output) if isinstance(output, tuple) else 0)


def _kept(run: CleanRun, x: Tensor) -> Tensor:
    """The kept positions of an activation [batch length ...]; a copy, so that the others can be freed."""
    return x[:, run.start :].clone() if run.start else x


def _finish(run: CleanRun, module: nn.Module, args: tuple, output: Any) -> None:
    run.last = (output[0] if isinstance(output, tuple) else output)[:, -1]


def _read(run: CleanRun, layer: int, interventions: list[Intervention], call: Call) -> Tensor:
    run.k_before.append(call.k[:, :, : run.start])
    run.v_before.append(call.v[:, :, : run.start])
    run.mask.append(None if call.mask is None else call.mask[:1, :, run.start :])
    for intervention in interventions:
        for head in intervention.heads:
            if head.layer == layer:
                run.changed[intervention, head] = _changed_z(run, call, intervention, head)
    return attend(call)


def _changed_z(run: CleanRun, call: Call, intervention: Intervention, head: Head) -> Tensor:
    step = max(1, BLOCK // (call.q.shape[0] * call.k.shape[2]))
    value, parts = call.head_value(head.head), []
    for first in range(run.start, run.length, step):
        queries = slice(first, min(first + step, run.length))
        positions = torch.arange(queries.start, queries.stop, device=call.q.device)
        place = Place(head, run.rows, positions, call.visible()[:, 0, queries])
        parts.append(intervention.apply(call.pattern(head.head, queries), place).to(value.dtype) @ value)
    return torch.cat(parts, 1)


def _crop(value: Any, run: CleanRun) -> Any:
    """An argument of a block, cut to the kept positions; masks are dropped, since the engine's attention has its own."""
    if isinstance(value, tuple | list):
        return type(value)(_crop(part, run) for part in value)
    if not isinstance(value, Tensor):
        return value
    if value.dim() == 4:
        return None
    if value.dim() >= 2 and value.shape[1] == run.length:
        return value[:1, run.start :]
    return value[run.start :] if value.dim() == 1 and value.shape[0] == run.length else value
