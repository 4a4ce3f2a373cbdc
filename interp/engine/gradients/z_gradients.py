"""Gradients of an outcome at z of every head, from one backward pass over the clean prompts.

A model whose parts are not known is differentiated through TransformerLens's hooks, with whole patterns in memory.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from interp.engine.attention.attention_interface import upcast
from interp.engine.forward.activation_names import hook_name
from interp.engine.forward.run import at_answer, has_learned_sinks, visible_keys
from interp.engine.sweep.clean_pass import CleanPass
from interp.interventions import Intervention, InterventionContext
from interp.models.model import Model
from interp.tasks.task import Example
from interp.tasks.token_batch import TokenBatch

Value = Callable[[Tensor], Tensor]
"""The function that is differentiated: logits [batch pos d_vocab] -> [batch]."""


def next_token_loss(batch: TokenBatch) -> Value:
    """Mean cross-entropy of each text's tokens after the first, in nats."""
    return lambda logits: cross_entropy(upcast(logits[:, :-1]).mT, batch.tokens[:, 1:], reduction="none").mean(1)


def z_gradients(
    model: Model, batch: TokenBatch, value: Value, *, last: int, dropped_layers: Sequence[int | None] = (None,)
) -> tuple[Tensor, list[Tensor], list[list[Tensor]]]:
    """The value [batch] of the clean logits (of so many ``last`` positions; 0: of all), and z and its gradient of every
    layer, each [batch pos head d_head]. There is one backward pass for each of ``dropped_layers``, without the gradient through
    the output of that block (GradDrop, arXiv 2403.00745). Raises FastPathUnavailable where the model's parts are not known."""
    (hf, layout), n_heads = model.known_parts, model.facts.n_heads
    leaves: list[Tensor] = []
    stopped: int | None = None

    def tap(module: nn.Module, args: tuple) -> tuple:
        z = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        leaves.append(z)
        return (z, *args[1:])

    def gate(layer: int, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        entering = args[0] if args else kwargs["hidden_states"]
        written = (output[0] if isinstance(output, tuple) else output) - entering
        written.register_hook(lambda slope: torch.zeros_like(slope) if layer == stopped else slope)
        return (entering + written, *output[1:]) if isinstance(output, tuple) else entering + written

    passes: list[list[Tensor]] = []
    with model.lock, torch.enable_grad(), ExitStack() as stack:
        for projection in layout.outputs:
            stack.enter_context(projection.register_forward_pre_hook(tap))
        for layer, block in enumerate(layout.blocks if tuple(dropped_layers) != (None,) else ()):
            stack.enter_context(block.register_forward_hook(partial(gate, layer), with_kwargs=True))
        found = value(hf(input_ids=batch.tokens, use_cache=False, logits_to_keep=last).logits)
        for done, layer in enumerate(dropped_layers, 1):
            stopped = layer
            slopes = torch.autograd.grad(found.sum(), leaves, retain_graph=done < len(dropped_layers))
            passes.append([x.unflatten(-1, (n_heads, -1)) for x in slopes])
    return found.detach(), [x.detach().unflatten(-1, (n_heads, -1)) for x in leaves], passes


def hooked_z_gradients(
    model: Model, batch: TokenBatch, value: Value, read: Sequence[str] = ()
) -> tuple[Tensor, list[Tensor], list[Tensor], dict[str, Tensor]]:
    """As ``z_gradients``, from one hooked pass, and the activations named in ``read``."""
    seen: dict[str, Tensor] = {}
    z_names = [hook_name(f"z.{layer}") for layer in range(model.facts.n_layers)]

    def tap(name: str, z: Tensor, hook: Any) -> Tensor:
        seen[name] = z if z.requires_grad else z.detach().requires_grad_()
        return seen[name]

    def keep(name: str, x: Tensor, hook: Any) -> None:
        seen[name] = x.detach()

    hooks = [*((name, partial(tap, name)) for name in z_names), *((name, partial(keep, name)) for name in read)]
    with model.lock, torch.enable_grad():
        found = value(model.bridge.run_with_hooks(batch.tokens, fwd_hooks=hooks))
        gradients = torch.autograd.grad(found.sum(), [seen[name] for name in z_names])
    return found.detach(), [seen[name].detach() for name in z_names], list(gradients), seen


def hooked_clean_pass(
    model: Model,
    batch: TokenBatch,
    examples: Sequence[Example],
    example_ids: Sequence[int],
    changes: Sequence[Intervention],
    value: Value,
) -> tuple[CleanPass, Tensor, list[Tensor]]:
    """The clean activations that the estimate needs, the value, its gradients at z. Raises ValueError for changes of anything but z and
    patterns that need no more than these."""
    other = next((i for i in changes if i.site == "scores" or i.needs_engine), None)
    if other is not None:
        raise ValueError(
            f"The effect of {other.label!r} cannot be estimated in {model.facts.name}: the parts of a "
            f"{model.facts.architecture} model are not known. Sweep exactly."
        )
    patterns = [(i, head) for i in changes if i.site == "pattern" for head in i.heads]
    read = {hook_name(f"{site}.{head.layer}") for _, head in patterns for site in ("pattern", "v")}
    answered: list[Tensor] = []

    def keeping(logits: Tensor) -> Tensor:
        answered.append(at_answer(logits.detach(), examples[0].n_answer_tokens).clone())
        return value(logits)

    found, z, gradients, seen = hooked_z_gradients(model, batch, keeping, sorted(read))
    positions = torch.arange(batch.tokens.shape[1], device=model.device).expand(len(examples), -1)
    clean = CleanPass(examples, torch.tensor(example_ids, device=model.device), positions, z=z, logits=answered[0])
    for intervention, head in patterns:
        pattern, v = (seen[hook_name(f"{site}.{head.layer}")] for site in ("pattern", "v"))
        visible = visible_keys(model, head.layer, clean.n_positions).to(model.device)
        rows = upcast(pattern[:, head.head])
        share = 1 - rows.sum(-1, keepdim=True) if has_learned_sinks(model, head.layer) else None
        place = InterventionContext(head, clean.example_ids, positions[:1], visible, positions[:1], share)
        new = intervention.apply(rows, place).to(v.dtype)
        clean.ablated_z[intervention, head] = new @ v[:, :, head.head * v.shape[2] // model.facts.n_heads]
    return clean, found, gradients
