"""The clean run that a sweep restarts from: everything that a change of some heads leaves as it was."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
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
    """Activations of one batch of prompts, from position ``start`` on (``n`` positions), by layer.

    Prompts of different lengths are padded on the right, which a causal model does not see; ``part`` gives the run of equally long
    ones, and only such a run is restarted. ``residual`` and ``attn_out`` [batch n d_model] enter and leave a block's attention; ``z``
    [batch n head d_head]; ``k_before`` and ``v_before`` [batch kv_head start d_head]; ``mask`` [1 1 n length] or None; ``changed`` holds
    z of heads whose pattern is changed; ``last`` [batch d_model] is the residual that predicts the answer; ``logits``
    [batch d_vocab] the model's own.
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
    masks: dict[str | tuple[int, ...], Tensor] = field(default_factory=dict)
    last: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def length(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(e.clean) for e in self.examples)

    def part(self, rows: Sequence[int], start: int) -> CleanRun:
        """The run of these examples alone, which are equally long, from position ``start`` on."""
        if rows == self.rows.tolist() and start == self.start:
            return self
        index = torch.tensor([self.rows.tolist().index(row) for row in rows], device=self.rows.device)
        examples = [self.examples[i] for i in index.tolist()]
        kept = slice(start - self.start, len(examples[0].clean) - self.start)
        shape = (self.length - self.start, kept)

        def cut(activations: list[Tensor]) -> list[Tensor]:
            return [x[index, kept] for x in activations]

        return CleanRun(
            examples,
            self.rows[index],
            start,
            residual=cut(self.residual),
            attn_out=cut(self.attn_out),
            z=cut(self.z),
            k_before=[k[index, :, :start] for k in self.k_before],
            v_before=[v[index, :, :start] for v in self.v_before],
            mask=[None if m is None else m[:, :, kept, : len(examples[0].clean)] for m in self.mask],
            arguments=[
                (_crop(args, *shape), {k: _crop(v, *shape) for k, v in kwargs.items()}) for args, kwargs in self.arguments
            ],
            n_returned=self.n_returned,
            changed={key: z[index, kept] for key, z in self.changed.items()},
            last=self.last[index],
            logits=self.logits[index],
        )

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
        return torch.where(self.touched(intervention.positions), new - z, 0)

    def touched(self, positions: str | tuple[int, ...]) -> Bool[Tensor, "batch n 1"]:
        """True at the kept positions that ``positions`` names."""
        if positions not in self.masks:
            self.masks[positions] = touched(positions, self.examples)[:, self.start :, None].to(self.rows.device)
        return self.masks[positions]


def clean_run(
    model: Model,
    examples: Sequence[Example],
    rows: Sequence[int],
    start: int = 0,
    interventions: Sequence[Intervention] = (),
    *,
    before: int | None = None,
) -> CleanRun:
    """One forward pass over ``examples``, keeping what a restart at position ``start`` needs; with ``before`` (the largest start of
    any part that will be taken) the keys and values of so many first positions.

    ``interventions`` at the pattern are evaluated here, a block of queries at a time, since they read the clean rows. Raises
    RoadClosed where the model's parts are not known or not called once a layer.
    """
    if model.hf is None or model.layout is None:
        raise RoadClosed(f"{model.facts.name}: the parts of a {model.facts.architecture} model are not known")
    layout, device = model.layout, model.device
    run = CleanRun(examples, torch.tensor(rows, device=device), start)
    tokens = torch.tensor([[*e.clean, *[0] * (run.length - len(e.clean))] for e in examples], device=device)
    ends = torch.tensor([len(e.clean) - 1 for e in examples], device=device)
    distinct, which = ends.unique(return_inverse=True)
    readers = {
        module: partial(
            _read, run, layer, start if before is None else before, [i for i in interventions if i.site == "pattern"]
        )
        for layer, module in enumerate(layout.attentions)
    }
    with ExitStack() as stack:
        stack.enter_context(reading(model.hf, readers))
        for block, attention, output in zip(layout.blocks, layout.attentions, layout.outputs, strict=True):
            stack.callback(block.register_forward_pre_hook(partial(_enter, run), with_kwargs=True).remove)
            stack.callback(output.register_forward_pre_hook(partial(_keep_z, run, model.facts.n_heads)).remove)
            stack.callback(attention.register_forward_hook(partial(_leave, run)).remove)
        stack.callback(layout.blocks[-1].register_forward_hook(partial(_finish, run, ends)).remove)
        logits = model.hf(input_ids=tokens, use_cache=False, logits_to_keep=distinct).logits
        run.logits = logits[torch.arange(len(examples), device=device), which]
    counts = {len(run.residual), len(run.z), len(run.attn_out), len(run.mask)}
    if counts != {model.facts.n_layers}:
        raise RoadClosed(f"{model.facts.architecture}: attention or its output projection is not called once a layer")
    return run


def _enter(run: CleanRun, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    hidden = args[0] if args else kwargs["hidden_states"]
    run.residual.append(_kept(run, hidden))
    kept = (run.length, slice(run.start, run.length))
    rest = {name: _crop(value, *kept) for name, value in kwargs.items() if name != "hidden_states"}
    run.arguments.append((_crop(args[1:], *kept), rest))


def _keep_z(run: CleanRun, n_heads: int, module: nn.Module, args: tuple) -> None:
    run.z.append(_kept(run, args[0]).unflatten(-1, (n_heads, -1)))


def _leave(run: CleanRun, module: nn.Module, args: tuple, output: Any) -> None:
    out = output[0] if isinstance(output, tuple) else output
    run.attn_out.append(_kept(run, out))
    run.n_returned.append(len(output) if isinstance(output, tuple) else 0)


def _kept(run: CleanRun, x: Tensor) -> Tensor:
    """The kept positions of an activation [batch length ...]; a copy, so that the others can be freed."""
    return x[:, run.start :].clone() if run.start else x


def _finish(run: CleanRun, ends: Tensor, module: nn.Module, args: tuple, output: Any) -> None:
    run.last = (output[0] if isinstance(output, tuple) else output)[torch.arange(len(ends), device=ends.device), ends]


def _read(run: CleanRun, layer: int, before: int, interventions: list[Intervention], call: Call) -> Tensor:
    run.k_before.append(call.k[:, :, :before])
    run.v_before.append(call.v[:, :, :before])
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


def _crop(value: Any, length: int, kept: slice) -> Any:
    """An argument of a block over ``length`` positions, cut to the kept ones; masks are dropped: the engine's attention has its own."""
    if isinstance(value, tuple | list):
        return type(value)(_crop(part, length, kept) for part in value)
    if not isinstance(value, Tensor):
        return value
    if value.dim() == 4:
        return None
    if value.dim() >= 2 and value.shape[1] == length:
        return value[:1, kept]
    return value[kept] if value.dim() == 1 and value.shape[0] == length else value
