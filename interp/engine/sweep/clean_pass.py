"""The clean pass from which a sweep is resumed: all activations that a change of some heads leaves unchanged, by layer."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.engine.attention.attention_interface import (
    AttentionInputs,
    Mask,
    attend,
    attention_hooks,
)
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, read_rows
from interp.errors import FastPathUnavailable
from interp.heads import Head
from interp.interventions import Intervention, InterventionContext
from interp.models.model import Model, ModelFacts
from interp.tasks.position_names import position_mask
from interp.tasks.task import Example
from interp.tasks.token_batch import TokenBatch, as_batch, check_one_pass


@dataclass(eq=False)
class CleanPass:
    """Activations of one batch of prompts at ``positions`` [batch n], by layer.

    ``clean_pass`` keeps positions ``start`` and later of prompts padded on the right (causal models do not see the padding).
    Runs are resumed from a ``select``-ion: some prompts at the last ``n`` positions of each. ``residual`` and ``attn_out``
    [batch n d_model] are input and output of a block's attention; ``z`` is [batch n head d_head]; ``k_before`` and ``v_before``
    [batch kv_head n_before d_head] belong to earlier positions; ``mask`` [batch or 1, 1, n, keys] tells which keys are visible,
    None for causal attention; ``attended`` is the attention output of the layer being run, ``ablated_z`` z of heads whose pattern
    or scores are changed; ``final_residual`` [batch d_model] predicts the answer; ``logits`` [batch d_vocab] are the model's own (for
    answers of several tokens [batch n_tokens ...]).
    """

    examples: Sequence[Example]
    example_ids: Int[Tensor, " batch"]
    positions: Int[Tensor, "batch n"]
    residual: list[Tensor] = field(default_factory=list)
    attn_out: list[Tensor] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)
    k_before: list[Tensor] = field(default_factory=list)
    v_before: list[Tensor] = field(default_factory=list)
    mask: list[Tensor | None] = field(default_factory=list)
    arguments: list[tuple[tuple, dict[str, Any]]] = field(default_factory=list)
    n_returned: list[int] = field(default_factory=list)
    ablated_z: dict[tuple[Intervention, Head], Tensor] = field(default_factory=dict)
    masks: dict[str | tuple[int, ...], Tensor] = field(default_factory=dict)
    attended: Tensor = field(default_factory=lambda: torch.empty(0))
    final_residual: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def n_positions(self) -> int:
        """Number of positions kept of each prompt."""
        return self.positions.shape[1]

    @property
    def n_answer_tokens(self) -> int:
        """Number of tokens of every answer."""
        return self.examples[0].n_answer_tokens

    @property
    def n_before(self) -> int:
        """Largest number of positions of a prompt that precede the kept ones."""
        return self.k_before[0].shape[2]

    @cached_property
    def left_padded(self) -> TokenBatch:
        """The prompts, padded on the left: the last ``n_positions`` columns are the kept positions of all of them."""
        lengths, device = torch.tensor([len(e.clean) for e in self.examples]), self.example_ids.device
        longest = int(lengths.max())
        tokens = [[0] * (longest - len(e.clean)) + list(e.clean) for e in self.examples]
        mask = torch.arange(longest) >= longest - lengths[:, None]
        return TokenBatch(torch.tensor(tokens, device=device), mask.to(device), [e.marks for e in self.examples])

    def select(self, example_ids: Sequence[int], n_positions: int) -> "CleanPass":
        """The clean pass of these examples at the last ``n_positions`` positions of each."""
        whole = all(len(e.clean) == n_positions == self.n_positions for e in self.examples)
        if whole and not self.n_before and list(example_ids) == self.example_ids.tolist():
            return self
        index = torch.tensor([self.example_ids.tolist().index(row) for row in example_ids], device=self.example_ids.device)
        examples = [self.examples[i] for i in index.tolist()]
        lengths = torch.tensor([len(e.clean) for e in examples], device=self.example_ids.device)
        positions = lengths[:, None] - n_positions + torch.arange(n_positions, device=lengths.device)
        before, first = int(lengths.max()) - n_positions, int(self.positions[0, 0])
        kept = positions - first
        alike = slice(1) if len(lengths.unique()) == 1 else slice(None)  # equally long prompts share one row
        masks = {
            key: None if mask is None and not before else _tail_mask(mask, positions[alike], before, first)
            for key, mask in {id(mask): mask for mask in self.mask}.items()
        }
        at = partial(_argument_at, self.n_positions, kept[alike])
        flat = (index[:, None] * self.n_positions + kept).flatten()

        def taken(x: Tensor) -> Tensor:  # much faster than an index for each dimension
            return x.flatten(0, 1).index_select(0, flat).unflatten(0, kept.shape)

        return CleanPass(
            examples,
            self.example_ids[index],
            positions,
            residual=[*map(taken, self.residual)],
            attn_out=[*map(taken, self.attn_out)],
            z=[*map(taken, self.z)],
            k_before=[k[index, :, :before] for k in self.k_before],
            v_before=[v[index, :, :before] for v in self.v_before],
            mask=[masks[id(mask)] for mask in self.mask],
            arguments=[map_leaves(at, arguments) for arguments in self.arguments],
            n_returned=self.n_returned,
            ablated_z={key: taken(z) for key, z in self.ablated_z.items()},
            final_residual=self.final_residual[index],
            logits=self.logits[index],
        )

    def change(self, intervention: Intervention, head: Head) -> Float[Tensor, "batch n d_head"]:
        """The change that the intervention makes to this head's z in the clean run; 0 at other positions."""
        z = self.z[head.layer][:, :, head.head]
        if intervention.inside_attention:
            new = self.ablated_z[intervention, head]
        else:
            new = intervention.apply(z, InterventionContext(head, self.example_ids, self.positions))
        moved = new - z
        if intervention.positions == "all" or intervention.site in ("k", "v"):  # which later queries read
            return moved
        return torch.where(self.position_mask(intervention.positions), moved, 0)

    def position_mask(self, positions: str | tuple[int, ...]) -> Bool[Tensor, "batch n 1"]:
        """True at the kept positions named by ``positions``."""
        if positions not in self.masks:
            masks = [position_mask(positions, [example])[:, -self.n_positions :] for example in self.examples]
            self.masks[positions] = torch.cat(masks)[:, :, None].to(self.example_ids.device)
        return self.masks[positions]


def clean_pass(
    model: Model,
    examples: Sequence[Example],
    example_ids: Sequence[int],
    start: int = 0,
    changes: Sequence[tuple[Intervention, Head]] = (),
    *,
    n_before: int | None = None,
) -> CleanPass:
    """One forward pass over ``examples`` that keeps activations from position ``start`` on.

    Keys and values are kept of the first ``n_before`` positions (default ``start``): the largest start of any later
    ``select``-ion. ``changes`` of patterns and scores are evaluated here, in blocks of queries, because they depend on
    the clean rows. Raises FastPathUnavailable where the model's parts are not known or not called once per layer.
    """
    (hf, layout), device, batch = model.known_parts, model.device, as_batch(model, examples)
    check_one_pass(model, batch)
    positions = torch.arange(start, batch.tokens.shape[1], device=device).expand(len(examples), -1)
    run = CleanPass(examples, torch.tensor(example_ids, device=device), positions)
    ends = batch.token_mask.sum(1)[:, None] - torch.arange(run.n_answer_tokens, 0, -1, device=device)
    distinct, which = ends.unique(return_inverse=True)
    before, changes = start if n_before is None else n_before, [(i, head) for i, head in changes if i.inside_attention]
    hooks = {module: partial(_read, run, batch, layer, before, changes) for layer, module in enumerate(layout.attentions)}
    with ExitStack() as stack:
        stack.enter_context(attention_hooks(hf, hooks))
        for block, attention, output in zip(layout.blocks, layout.attentions, layout.outputs, strict=True):
            stack.enter_context(block.register_forward_pre_hook(partial(_enter, run), with_kwargs=True))
            stack.enter_context(output.register_forward_pre_hook(partial(_keep_z, run, model.facts)))
            stack.enter_context(attention.register_forward_hook(partial(_leave, run)))
        stack.enter_context(layout.blocks[-1].register_forward_hook(partial(_finish, run, ends)))
        logits = hf(input_ids=batch.tokens, use_cache=False, logits_to_keep=distinct).logits
        run.attended = logits[:0]  # that of the last layer is no longer needed
        run.logits = _at(logits, which)
    counts = {len(run.residual), len(run.z), len(run.attn_out), len(run.mask)}
    if counts != {model.facts.n_layers}:
        raise FastPathUnavailable(f"{model.facts.architecture}: attention or its output projection is not called once a layer")
    return run


def _enter(run: CleanPass, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    hidden = args[0] if args else kwargs["hidden_states"]
    run.residual.append(_kept(run, hidden))
    others = args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}
    run.arguments.append(map_leaves(partial(_argument_at, hidden.shape[1], run.positions[:1]), others))


def _keep_z(run: CleanPass, facts: ModelFacts, module: nn.Module, args: tuple) -> None:
    if len(run.mask) == len(run.z):
        raise FastPathUnavailable(
            f"{facts.architecture}: a layer computes no attention through transformers' interface before the projection found there"
        )
    z = run.attended.transpose(1, 2).flatten(2)
    if args[0].shape == z.shape and not torch.equal(args[0], z) and not torch.equal(args[0].nan_to_num(), z.nan_to_num()):
        raise FastPathUnavailable(f"{facts.architecture}: what the heads attend to is gated or normed before its projection")
    run.z.append(_kept(run, args[0]).unflatten(-1, (facts.n_heads, -1)))


def _leave(run: CleanPass, module: nn.Module, args: tuple, output: Any) -> None:
    out = output[0] if isinstance(output, tuple) else output
    run.attn_out.append(_kept(run, out))
    run.n_returned.append(len(output) if isinstance(output, tuple) else 0)


def _kept(run: CleanPass, x: Tensor) -> Tensor:
    """The kept positions of an activation [batch length ...], copied so that the others can be freed."""
    return x if x.shape[1] == run.n_positions else x[:, -run.n_positions :].clone()


def _finish(run: CleanPass, ends: Tensor, module: nn.Module, args: tuple, output: Any) -> None:
    run.final_residual = _at(output[0] if isinstance(output, tuple) else output, ends)


def _at(x: Tensor, positions: Int[Tensor, "batch n_tokens"]) -> Float[Tensor, "batch ..."]:
    """``x`` [batch pos ...] at some positions of each prompt, [batch n_tokens ...], or [batch ...] where that is one."""
    found = x[torch.arange(len(positions), device=positions.device)[:, None], positions]
    return found[:, 0] if positions.shape[1] == 1 else found


def _read(
    run: CleanPass, batch: TokenBatch, layer: int, before: int, changes: list[tuple[Intervention, Head]], call: AttentionInputs
) -> Tensor:
    if call.slopes is not None:
        raise FastPathUnavailable("a run cannot be resumed under ALiBi")
    if call.mask is None and not call.causal and call.q.shape[2] > 1:
        raise FastPathUnavailable("an attention module calls itself bidirectional, and the model is causal")
    # views would keep all positions alive and, of fused projections, q as well
    run.k_before.append(call.k[:, :, :before].clone())
    run.v_before.append(call.v[:, :, :before].clone())
    run.mask.append(None if call.mask is None else call.visible(slice(-run.n_positions, None))[:1])
    for intervention, head in changes:
        if head.layer == layer:
            inputs = AttentionLayer(layer, call if intervention.needs_whole_text else call.last(run.n_positions), batch)
            z = read_rows(inputs, None, [intervention], run.example_ids, block=BLOCK, head_index=head.head)
            run.ablated_z[intervention, head] = z[:, 0, -run.n_positions :]
    run.attended = attend(call)
    return run.attended


def _tail_mask(mask: Tensor | None, positions: Tensor, before: int, first: int) -> Bool[Tensor, "some 1 n all"]:
    """Which keys are visible at the last positions [some n] of prompts: the ``before`` earlier ones (shorter prompts have
    fewer), then these positions. The first query of ``mask`` [1 1 queries keys] is at position ``first``."""
    earlier = torch.arange(before, device=positions.device).expand(len(positions), -1)
    keys = torch.cat([earlier, positions], 1)[:, None]
    exists = torch.cat([earlier < positions[:, :1], torch.ones_like(positions, dtype=torch.bool)], 1)[:, None]
    seen = keys <= positions[:, :, None] if mask is None else mask[0, 0][positions[:, :, None] - first, keys]
    return (seen & exists)[:, None]


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """``function`` of everything in nested tuples, lists and dictionaries of arguments."""
    if isinstance(value, dict):
        return {name: map_leaves(function, part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map_leaves(function, part) for part in value)
    return function(value)


def _argument_at(length: int, positions: Tensor, value: Any) -> Any:
    """An argument of a block over ``length`` positions, at ``positions`` [some n]; None for masks: the engine keeps its own."""
    if isinstance(value, Mask) or (isinstance(value, Tensor) and value.dim() == 4):
        return None
    if not isinstance(value, Tensor) or length not in value.shape[:2]:
        return value
    if value.dim() > 1:
        return value[0, positions] if value.shape[1] == length else value
    if len(positions) > 1:
        raise FastPathUnavailable("a block takes one set of positions for all prompts")
    return value[positions[0]]
