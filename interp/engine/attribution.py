"""The gradient estimate of every variant's effect from one backward pass.

``effect ~ sum over changed heads and positions of (new z - z) . d outcome / d z``: the first-order term of what the exact sweep
measures (attribution patching). It is blind where the outcome saturates; ``ablate_heads(method="adaptive")`` says how far to believe it.
A model whose parts are not known is differentiated through TransformerLens's hooks, with the patterns of whole layers in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.engine.clean import CleanRun, RoadClosed, clean_run
from interp.engine.hooked import visible_keys
from interp.engine.names import hook_name
from interp.engine.outcome import Answers, Outcome
from interp.engine.plan import batches, heads_of
from interp.engine.restart import Variant
from interp.engine.sweeps import Progress, SweepResult, check_outcome
from interp.heads import Head
from interp.interventions import Intervention, Place
from interp.models.model import Model
from interp.records import RunRecord
from interp.tasks.task import Example, Task


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
    if outcome.relative_to_clean or outcome.name == "accuracy":
        raise ValueError(
            f"Metric {outcome.name!r} has no gradient at the clean run: estimate with logit_diff, or sweep exactly."
        )
    check_outcome(task, outcome)
    baseline = np.full(len(task), np.nan)
    estimates = np.full((len(variants), len(task)), np.nan)
    changes = list(dict.fromkeys(i for v in variants for i in v))
    parts = batches(task)
    for done, rows in enumerate(parts):
        examples = [task.examples[r] for r in rows]
        try:
            with model.lock, torch.inference_mode():
                clean = clean_run(model, examples, rows, 0, changes)
            value, gradients = _gradients(model, examples, outcome)
        except RoadClosed:
            clean, value, gradients = _hooked_gradients(model, examples, rows, changes, outcome)
        baseline[rows] = value.cpu().double().numpy()
        for v, variant in enumerate(variants):
            terms = [(gradients[h.layer][:, :, h.head] * clean.change(i, h)).sum((1, 2)) for i in variant for h in i.heads]
            estimates[v, rows] = torch.stack(terms).sum(0).cpu().double().numpy()
        if progress:
            progress(done + 1, len(parts))
    heads = tuple(heads_of(v) for v in variants)
    values, positions = baseline + estimates, str(variants[0][0].positions)
    method = f"attribution of {variants[0][0].label}"
    return SweepResult(heads, method, positions, outcome.name, outcome.unit, baseline, values, record, "gradient")


def _gradients(model: Model, examples: Sequence[Example], outcome: Outcome) -> tuple[Tensor, list[Tensor]]:
    """The outcome [batch] and its gradient at every layer's z, [batch pos head d_head] each."""
    assert model.hf is not None and model.layout is not None
    leaves: list[Tensor] = []

    def tap(module: nn.Module, args: tuple) -> tuple:
        z = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        leaves.append(z)
        return (z, *args[1:])

    tokens = torch.tensor([e.clean for e in examples], device=model.device)
    answers = Answers.of(examples, model.device)
    with model.lock, torch.enable_grad(), ExitStack() as stack:
        for projection in model.layout.outputs:
            stack.callback(projection.register_forward_pre_hook(tap).remove)
        logits = model.hf(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        value = outcome.function(logits, answers, logits.detach())
        gradients = torch.autograd.grad(value.sum(), leaves)
    return value.detach(), [g.unflatten(-1, (model.facts.n_heads, -1)) for g in gradients]


def _hooked_gradients(
    model: Model, examples: Sequence[Example], rows: Sequence[int], changes: Sequence[Intervention], outcome: Outcome
) -> tuple[CleanRun, Tensor, list[Tensor]]:
    """As much of the clean run as the estimate needs, the outcome and its gradients at z, from one hooked pass."""
    seen: dict[str, Tensor] = {}
    patterns = [(i, head) for i in changes if i.site == "pattern" for head in i.heads]
    z_names = [hook_name(f"z.{layer}") for layer in range(model.facts.n_layers)]
    read = {hook_name(f"{site}.{head.layer}") for _, head in patterns for site in ("pattern", "v")}

    def tap(name: str, z: Tensor, hook: Any) -> Tensor:
        seen[name] = z if z.requires_grad else z.detach().requires_grad_()
        return seen[name]

    def keep(name: str, x: Tensor, hook: Any) -> None:
        seen[name] = x.detach()

    tokens = torch.tensor([e.clean for e in examples], device=model.device)
    answers = Answers.of(examples, model.device)
    hooks = [*((name, partial(tap, name)) for name in z_names), *((name, partial(keep, name)) for name in read)]
    with model.lock, torch.enable_grad():
        logits = model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1].float()
        value = outcome.function(logits, answers, logits.detach())
        gradients = torch.autograd.grad(value.sum(), [seen[name] for name in z_names])
    positions = torch.arange(tokens.shape[1], device=model.device).expand(len(examples), -1)
    clean = CleanRun(examples, torch.tensor(rows, device=model.device), positions, z=[seen[n].detach() for n in z_names])
    for intervention, head in patterns:
        pattern, v = (seen[hook_name(f"{site}.{head.layer}")] for site in ("pattern", "v"))
        place = Place(head, clean.rows, positions[:1], visible_keys(model, head.layer, clean.n).to(model.device))
        new = intervention.apply(pattern[:, head.head].float(), place).to(v.dtype)
        clean.changed[intervention, head] = new @ v[:, :, head.head * v.shape[2] // model.facts.n_heads]
    return clean, value.detach(), list(gradients)


def ranked(result: SweepResult) -> list[tuple[Head, ...]]:
    """Variants by the size of their mean effect, largest first; ties in order."""
    size = np.abs(result.effects.mean(1))
    return [result.variants[i] for i in np.argsort(-size, kind="stable")]
