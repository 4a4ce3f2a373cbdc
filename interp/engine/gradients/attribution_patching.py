"""The gradient estimate of every variant's effect, from one backward pass (attribution patching).

``effect ~ sum over ablated heads and positions of (new z - z) . d outcome / d z``: the first-order term of the exact effect. It
fails where the outcome saturates; ``ablate_heads(estimator="adaptive")`` reports its agreement with exact runs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from interp.engine.attention.attention_interface import upcast
from interp.engine.gradients.z_gradients import (
    hooked_clean_pass,
    hooked_z_gradients,
    next_token_loss,
    z_gradients,
)
from interp.engine.sweep.clean_pass import clean_pass
from interp.engine.sweep.clean_performance import right_and_preferred, with_performance
from interp.engine.sweep.outcome import Outcome, check_gradient, check_outcome
from interp.engine.sweep.sweep import Progress, SweepResult
from interp.engine.sweep.variant import Variant
from interp.engine.sweep.work_units import batches
from interp.errors import FastPathUnavailable
from interp.models.model import Model
from interp.records import RunRecord
from interp.tasks.task import Task
from interp.tasks.token_batch import as_batch

LOGITS = 1 << 26  # logits in memory at once where the loss of whole texts is differentiated


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

    Raises ValueError for outcomes that are not differentiable at the clean run (KL, accuracy) and for an encoder.
    """
    model.facts.check_causal("Attribution")
    check_gradient(outcome)
    check_outcome(task, outcome)
    baseline, estimates = np.full(len(task), np.nan), np.full((len(variants), len(task)), np.nan)
    changes = list(dict.fromkeys(i for v in variants for i in v))
    parts, answered = batches(task), np.full((2, len(task)), np.nan)
    for done, example_ids in enumerate(parts):
        examples = [task.examples[r] for r in example_ids]
        value, batch = outcome.as_function(examples, model.device), as_batch(model, examples)
        try:
            with model.lock, torch.inference_mode():
                clean = clean_pass(model, examples, example_ids, 0, [(i, head) for i in changes for head in i.heads])
            clean_values, _, (gradients,) = z_gradients(model, batch, value, last=examples[0].n_answer_tokens)
        except FastPathUnavailable:
            clean, clean_values, gradients = hooked_clean_pass(model, batch, examples, example_ids, changes, value)
        baseline[example_ids] = clean_values.cpu().double().numpy()
        answered[:, example_ids] = right_and_preferred(examples, clean.logits)
        for v, variant in enumerate(variants):
            terms = [(gradients[h.layer][:, :, h.head] * clean.change(i, h)).sum((1, 2)) for i in variant for h in i.heads]
            estimates[v, example_ids] = torch.stack(terms).sum(0).cpu().double().numpy()
        if progress:
            progress(done + 1, len(parts))
    record = with_performance(record, task, answered, outcome.name, float(baseline.mean()))
    return SweepResult.of(variants, outcome, baseline, baseline + estimates, record, "gradient")


def head_gate_gradients(model: Model, task: Task, outcome: Outcome | None) -> Float[np.ndarray, "n_layers n_heads n_examples"]:
    """Derivative of each example's outcome by a gate on each head's output, at 1: sum over positions of z . d outcome / d z.

    Without an ``outcome`` it is that of the mean next-token cross-entropy of the clean prompts (nats). The first-order effect
    of ``zero`` is its negative. Raises ValueError as ``attribute`` does, and for a prompt of one token.
    """
    model.facts.check_causal("A gradient")
    if outcome is not None:
        check_gradient(outcome)
        check_outcome(task, outcome)
    short = next((i for i, e in enumerate(task) if len(e.clean) < 2), None)
    if outcome is None and short is not None:
        raise ValueError(f"Text {short} has one token, which leaves no next token to predict: give texts of at least two.")
    slopes = np.empty((model.facts.n_layers, model.facts.n_heads, len(task)))
    for same_length in batches(task):
        length = len(task.examples[same_length[0]].clean)
        batch_size = len(same_length) if outcome is not None else max(1, LOGITS // (length * model.facts.d_vocab))
        for start in range(0, len(same_length), batch_size):
            example_ids = same_length[start : start + batch_size]
            examples = [task.examples[r] for r in example_ids]
            batch = as_batch(model, examples)
            value = next_token_loss(batch) if outcome is None else outcome.as_function(examples, model.device)
            try:
                _, z, (gradients,) = z_gradients(
                    model, batch, value, last=0 if outcome is None else examples[0].n_answer_tokens
                )
            except FastPathUnavailable:
                _, z, gradients, _ = hooked_z_gradients(model, batch, value)
            found = torch.stack([(upcast(x) * upcast(g)).sum((1, 3)) for x, g in zip(z, gradients, strict=True)])
            slopes[:, :, example_ids] = found.permute(0, 2, 1).cpu().double().numpy()
    return slopes
