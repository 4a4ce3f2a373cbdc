"""How much every head matters through its query, key, value or output: exact effects, and corrected attribution patching.

A node is one of these at some positions; corrupting it sets it to its value on the corrupted prompt, all before it clean.

- ``exact``: recomputes everything after the node.
- ``atp``: change of the activation times the gradient there (attribution patching). Where attention is saturated, the gradient
  at queries and keys vanishes.
- ``atp-qk``: the softmax is recomputed for queries and keys instead of linearised (the QK fix of AtP*, arXiv 2403.00745).
- ``atp*``: also averages over backward passes that each drop the gradient through one layer (GradDrop of AtP*), since effects
  that cancel between two paths leave no gradient.

Scores are mean absolute effects, ``mean over pairs of |metric(corrupted) - metric(clean)|``, so that pairs do not cancel. No
estimate sees past a later saturated softmax: confirm the top heads with ``exact``.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.clean_and_corrupted_runs import MeasuredBatch, measuring, to_numpy
from interp.engine.gradients.corrupted_qkvz_effects import (
    NODE_KINDS,
    ResidualChange,
    atp_estimates,
    corrupted_z,
    position_estimates,
    qk_fix_estimates,
    resume_changes,
)
from interp.engine.gradients.z_gradients import z_gradients
from interp.engine.sweep.outcome import Outcome, check_single_tokens
from interp.engine.sweep.sweep import Progress
from interp.heads import Head, HeadScores, TokenScores
from interp.models.model import Model
from interp.registry import check_name
from interp.tasks.task import Task
from interp.tasks.token_batch import as_batch

NODE_METHODS = {
    "exact": "activation patching of every node by itself",
    "atp": "attribution patching, one backward pass",
    "atp-qk": "attribution patching with the softmax recomputed for queries and keys",
    "atp*": "atp-qk averaged over backward passes that each drop the gradient through one layer",
}
"""Cost for L layers: ``exact`` about L * heads / 2 forward passes, ``atp*`` L backward passes, the others one."""


def score_nodes(
    model: Model,
    task: Task,
    activation: str,
    *,
    method: str = "atp-qk",
    positions: str | tuple[int, ...] = "all",
    metric: str | None = None,
    progress: Progress | None = None,
) -> HeadScores:
    """Mean absolute effect of corrupting ``activation`` (``q``, ``k``, ``v`` or ``z``) of every head at ``positions``, in the
    metric's unit.

    Shared keys and values are corrupted for one query head at a time. Raises LookupError for unknown activations, methods,
    positions and metrics; ValueError for a metric without a gradient (estimates) and what ``score_edges`` refuses.
    """
    check_single_tokens(task.examples, "Scores of heads")
    check_name(method, NODE_METHODS, "method")
    check_name(activation, NODE_KINDS, "activation of a head")
    with measuring(model, task, metric, gradient=method != "exact") as measurement:
        sizes = measurement.zeros(measurement.graph.n_layers, model.facts.n_heads)
        for batch in measurement.batches(progress):
            where = batch.mask(positions)
            if method == "exact":
                by_layer = [_exact_effects(batch, layer, activation, where) for layer in range(len(sizes))]
            else:
                by_layer = _estimated_effects(measurement.outcome, batch, method, activation, where)
            for layer, effects in enumerate(by_layer):
                sizes[layer] += to_numpy(effects.sum(1)) / len(task)
    record = measurement.record(f"corrupted {activation}", method=method, positions=positions)
    return HeadScores(f"absolute effect of {activation}", sizes, measurement.outcome.unit, (0.0, None), record)


def _exact_effects(
    batch: MeasuredBatch, layer: int, activation: str, where: Bool[Tensor, "batch n"]
) -> Float[Tensor, "n_heads batch"]:
    """Absolute effects of the nodes of a layer, each by a forward pass of its own."""
    decomposition = batch.decomposition
    z = corrupted_z(decomposition, layer, activation, where) - decomposition.clean.z[layer]
    changes = [ResidualChange(layer, True, change) for change in decomposition.head_outputs(layer, z).unbind(2)]
    return (batch.read(resume_changes(decomposition, changes)) - batch.clean).abs()


def _estimated_effects(
    outcome: Outcome, batch: MeasuredBatch, method: str, activation: str, where: Bool[Tensor, "batch n"]
) -> list[Float[Tensor, "n_heads batch"]]:
    """Absolute estimated effects of the nodes of every layer."""
    decomposition, clean = batch.decomposition, batch.decomposition.clean
    model, n_layers = decomposition.model, decomposition.model.facts.n_layers
    dropped = tuple(range(n_layers)) if method == "atp*" and n_layers > 1 else (None,)
    estimate = atp_estimates if method == "atp" else qk_fix_estimates
    value = outcome.as_function(clean.examples, model.device)
    passes = z_gradients(model, as_batch(model, clean.examples), value, last=1, dropped_layers=dropped)[2]
    by_layer = []
    for layer in range(n_layers):
        slopes = torch.stack([gradients[layer][:, -clean.n_positions :] for gradients in passes])
        estimates = estimate(decomposition, layer, activation, where, slopes).abs().sum(0)
        by_layer.append(estimates / max(1, len(dropped) - 1))
    return by_layer


def score_positions(model: Model, task: Task, head: Head, activation: str, *, metric: str | None = None) -> TokenScores:
    """Estimated effect (``atp-qk``) of corrupting ``activation`` of a head at each position, per example; negative = it helped.

    Effects of keys at several positions are not the sum of these. Memory grows with length squared. Raises as ``score_nodes``.
    """
    check_single_tokens(task.examples, "Scores of positions")
    check_name(activation, NODE_KINDS, "activation of a head")
    head = model.facts.check_head(Head(*head))
    model.facts.check_causal("A gradient")
    effects = np.full((len(task), max(task.by_length())), np.nan)
    with measuring(model, task, metric, gradient=True) as measurement:
        for batch in measurement.batches():
            clean = batch.decomposition.clean
            value, length = measurement.outcome.as_function(clean.examples, model.device), len(clean.examples[0].clean)
            [gradients] = z_gradients(model, as_batch(model, clean.examples), value, last=1)[2]
            gradient = gradients[head.layer][:, -clean.n_positions :]
            estimates = to_numpy(position_estimates(batch.decomposition, *head, activation, gradient))
            measurement.check_finite(estimates)
            effects[batch.example_ids, :length] = 0.0  # positions before the first that differs
            effects[batch.example_ids, length - clean.n_positions : length] = estimates
    texts = [model.to_str_tokens(e.clean) if model.tokenizer else [str(i) for i in e.clean] for e in task]
    tokens = tuple((*row, *[""] * (effects.shape[1] - len(row))) for row in texts)
    record = measurement.record(f"corrupted {activation}", method="atp-qk", head=str(head))
    name, unit = f"estimated effect of {activation} of {head}", measurement.outcome.unit
    return TokenScores(name, effects, tokens, unit, (None, None), record, nan_reason="padding is not a token")
