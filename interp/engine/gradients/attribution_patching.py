"""The gradient estimate of every variant's effect from one backward pass.

``effect ~ sum over ablated_z heads and positions of (new z - z) . d outcome / d z``: the first-order term of what the exact sweep
measures (attribution patching). It is blind where the outcome saturates; ``ablate_heads(estimator="adaptive")`` says how far to believe it.
A model whose parts are not known is differentiated through TransformerLens's hooks, with the patterns of whole layers in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from interp.engine.attention.attention_interface import upcast
from interp.engine.forward.activation_names import hook_name
from interp.engine.forward.run import visible_keys
from interp.engine.sweep.clean_pass import CleanPass, FastPathUnavailable, clean_pass
from interp.engine.sweep.outcome import Answers, Outcome
from interp.engine.sweep.resume_from_layer import Variant
from interp.engine.sweep.sweep import Progress, SweepResult, check_outcome
from interp.engine.sweep.work_units import batches, heads_of
from interp.heads import Head
from interp.interventions import Intervention, InterventionContext
from interp.models.model import Model
from interp.records import RunRecord
from interp.tasks.task import Example, Task
from interp.tasks.token_batch import as_batch

Value = Callable[[Tensor], Tensor]
"""What is differentiated: logits [batch pos d_vocab] -> [batch]."""

LOGITS = 1 << 26  # held at once where a text's whole loss is differentiated


def attribute(
    model: Model,
    task: Task,
    variants: Sequence[Variant],
    outcome: Outcome,
    *,
    record: RunRecord,
    progress: Progress | None = None,
) -> SweepResult:
    """Estimated outcomes of every variant: ``values = baseline + estimate``, in the form of a sweep's result.

    Raises ValueError for outcomes measured against the clean run (KL), whose gradient there is 0, for step-like ones (accuracy), and for
    an encoder.
    """
    model.facts.check_causal("Attribution")
    check_gradient(outcome)
    check_outcome(task, outcome)
    baseline = np.full(len(task), np.nan)
    estimates = np.full((len(variants), len(task)), np.nan)
    changes = list(dict.fromkeys(i for v in variants for i in v))
    parts = batches(task)
    for done, example_ids in enumerate(parts):
        examples = [task.examples[r] for r in example_ids]
        try:
            with model.lock, torch.inference_mode():
                clean = clean_pass(model, examples, example_ids, 0, changes)
            value, _, (gradients,) = z_gradients(model, examples, answer_value(outcome, examples, model), last=True)
        except FastPathUnavailable:
            clean, value, gradients = _hooked_clean(
                model, examples, example_ids, changes, answer_value(outcome, examples, model)
            )
        baseline[example_ids] = value.cpu().double().numpy()
        for v, variant in enumerate(variants):
            terms = [(gradients[h.layer][:, :, h.head] * clean.change(i, h)).sum((1, 2)) for i in variant for h in i.heads]
            estimates[v, example_ids] = torch.stack(terms).sum(0).cpu().double().numpy()
        if progress:
            progress(done + 1, len(parts))
    heads = tuple(heads_of(v) for v in variants)
    values, positions = baseline + estimates, str(variants[0][0].positions)
    ablation = variants[0][0].label
    return SweepResult(heads, ablation, positions, outcome.name, outcome.unit, baseline, values, record, "gradient")


def head_gate_gradients(model: Model, task: Task, outcome: Outcome | None) -> Float[np.ndarray, "n_layers n_heads n_examples"]:
    """Slope of each example's outcome in the size of each head's output (1 = as it is): sum over positions of z . d outcome / d z.

    Without an ``outcome`` it is that of the mean cross-entropy of the tokens of the clean prompts, each from those before it (nats). The
    slope of ``zero`` is its negative. Raises ValueError as ``attribute`` does, and for a prompt of one token, where nothing is predicted.
    """
    model.facts.check_causal("A gradient")
    if outcome is not None:
        check_gradient(outcome)
        check_outcome(task, outcome)
    short = next((i for i, e in enumerate(task) if len(e.clean) < 2), None)
    if outcome is None and short is not None:
        raise ValueError(f"Text {short} has one token, and none is predicted from it: give texts of at least two.")
    slopes = np.empty((model.facts.n_layers, model.facts.n_heads, len(task)))
    for batch in batches(task):
        length = len(task.examples[batch[0]].clean)
        together = len(batch) if outcome is not None else max(1, LOGITS // (length * model.facts.d_vocab))
        for example_ids in (batch[i : i + together] for i in range(0, len(batch), together)):
            examples = [task.examples[r] for r in example_ids]
            value = next_token_loss(examples, model) if outcome is None else answer_value(outcome, examples, model)
            try:
                _, z, (gradients,) = z_gradients(model, examples, value, last=outcome is not None)
            except FastPathUnavailable:
                _, z, gradients, _ = _hooked_gradients(model, examples, value)
            found = torch.stack([(upcast(x) * upcast(g)).sum((1, 3)) for x, g in zip(z, gradients, strict=True)])
            slopes[:, :, example_ids] = found.permute(0, 2, 1).cpu().double().numpy()
    return slopes


def answer_value(outcome: Outcome, examples: Sequence[Example], model: Model) -> Value:
    """The outcome of the answers, read from the last logits."""
    answers = Answers.of(examples, model.device)
    return lambda logits: outcome.function(upcast(logits[:, -1]), answers, upcast(logits[:, -1].detach()))


def next_token_loss(examples: Sequence[Example], model: Model) -> Value:
    """Mean cross-entropy of each text's tokens after the first, in nats."""
    tokens = as_batch(model, examples).tokens
    return lambda logits: cross_entropy(upcast(logits[:, :-1]).mT, tokens[:, 1:], reduction="none").mean(1)


def z_gradients(
    model: Model, examples: Sequence[Example], value: Value, *, last: bool, dropped_layers: Sequence[int | None] = (None,)
) -> tuple[Tensor, list[Tensor], list[list[Tensor]]]:
    """The value [batch] of the clean logits (``last``: those of the last position alone), and z and its gradient of every layer, each
    [batch pos head d_head]. There is one backward pass for each of ``dropped_layers``: none of its gradient comes through what the block of that
    layer writes (GradDrop, arXiv 2403.00745). Raises FastPathUnavailable where the model's parts are not known."""
    if model.hf is None or model.layout is None:
        raise FastPathUnavailable(f"{model.facts.name}: the parts of a {model.facts.architecture} model are not known")
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

    tokens = as_batch(model, examples).tokens
    passes: list[list[Tensor]] = []
    with model.lock, torch.enable_grad(), ExitStack() as stack:
        for projection in model.layout.outputs:
            stack.callback(projection.register_forward_pre_hook(tap).remove)
        for layer, block in enumerate(model.layout.blocks if tuple(dropped_layers) != (None,) else ()):
            stack.callback(block.register_forward_hook(partial(gate, layer), with_kwargs=True).remove)
        found = value(model.hf(input_ids=tokens, use_cache=False, logits_to_keep=int(last)).logits)
        for done, layer in enumerate(dropped_layers, 1):
            stopped = layer
            slopes = torch.autograd.grad(found.sum(), leaves, retain_graph=done < len(dropped_layers))
            passes.append([x.unflatten(-1, (model.facts.n_heads, -1)) for x in slopes])
    return found.detach(), [x.detach().unflatten(-1, (model.facts.n_heads, -1)) for x in leaves], passes


def _hooked_gradients(
    model: Model, examples: Sequence[Example], value: Value, read: Sequence[str] = ()
) -> tuple[Tensor, list[Tensor], list[Tensor], dict[str, Tensor]]:
    """As ``z_gradients``, from one hooked pass, with the activations called by the names in ``read``."""
    seen: dict[str, Tensor] = {}
    z_names = [hook_name(f"z.{layer}") for layer in range(model.facts.n_layers)]

    def tap(name: str, z: Tensor, hook: Any) -> Tensor:
        seen[name] = z if z.requires_grad else z.detach().requires_grad_()
        return seen[name]

    def keep(name: str, x: Tensor, hook: Any) -> None:
        seen[name] = x.detach()

    tokens = as_batch(model, examples).tokens
    hooks = [*((name, partial(tap, name)) for name in z_names), *((name, partial(keep, name)) for name in read)]
    with model.lock, torch.enable_grad():
        found = value(model.bridge.run_with_hooks(tokens, fwd_hooks=hooks))
        gradients = torch.autograd.grad(found.sum(), [seen[name] for name in z_names])
    return found.detach(), [seen[name].detach() for name in z_names], list(gradients), seen


def _hooked_clean(
    model: Model, examples: Sequence[Example], example_ids: Sequence[int], changes: Sequence[Intervention], value: Value
) -> tuple[CleanPass, Tensor, list[Tensor]]:
    """As much of the clean run as the estimate needs, the value and its gradients at z. Raises ValueError for changes of scores."""
    scores = next((i for i in changes if i.site == "scores"), None)
    if scores is not None:
        raise ValueError(
            f"The effect of {scores.label!r} on scores cannot be estimated in {model.facts.name}: the parts of a "
            f"{model.facts.architecture} model are not known. Sweep exactly."
        )
    patterns = [(i, head) for i in changes if i.site == "pattern" for head in i.heads]
    read = {hook_name(f"{site}.{head.layer}") for _, head in patterns for site in ("pattern", "v")}
    found, z, gradients, seen = _hooked_gradients(model, examples, value, sorted(read))
    length = len(examples[0].clean)
    positions = torch.arange(length, device=model.device).expand(len(examples), -1)
    clean = CleanPass(examples, torch.tensor(example_ids, device=model.device), positions, z=z)
    for intervention, head in patterns:
        pattern, v = (seen[hook_name(f"{site}.{head.layer}")] for site in ("pattern", "v"))
        place = InterventionContext(
            head, clean.example_ids, positions[:1], visible_keys(model, head.layer, clean.n).to(model.device)
        )
        new = intervention.apply(upcast(pattern[:, head.head]), place).to(v.dtype)
        clean.ablated_z[intervention, head] = new @ v[:, :, head.head * v.shape[2] // model.facts.n_heads]
    return clean, found, gradients


def check_gradient(outcome: Outcome) -> None:
    """Raises ValueError for an outcome that is not differentiable at the clean run."""
    if not outcome.differentiable:
        raise ValueError(
            f"Metric {outcome.name!r} has no gradient at the clean run: estimate with logit_diff, or sweep exactly."
        )


def rank_variants(result: SweepResult) -> list[tuple[Head, ...]]:
    """Variants by the size of their mean effect, largest first; ties in order."""
    size = np.abs(result.effects.mean(1))
    return [result.variants[i] for i in np.argsort(-size, kind="stable")]
