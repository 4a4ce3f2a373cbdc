"""How much each head matters through its query, key, value or output: attribution patching with its known corrections, beside the truth.

A node is one of these parts of a head, at some positions; it is shown what the corrupted prompt makes of it, while all before it stays
clean. ``exact`` computes what follows anew. ``atp`` multiplies the change of the part with the gradient there; where attention is sharp the
gradient at queries and keys vanishes, and ``atp-qk`` computes the softmax instead of linearising it. Effects that cancel (on two ways
through the model) leave no gradient; ``atp*`` averages over backward passes, in each of which the gradient through one layer is dropped
(AtP*, arXiv 2403.00745). Scores are mean sizes: ``mean over pairs of |metric(corrupted) - metric(clean)|``, so that prompts do not cancel.
No estimate sees past a later softmax that is saturated: confirm the top by ``exact``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.circuits.edge_ablation import check_pairs
from interp.circuits.edge_scores import check_finite, check_finite_and_gap
from interp.heads import Head, HeadScores, TokenScores
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.tasks.task import Task

NODE_METHODS = {
    "exact": "every node corrupted by itself",
    "atp": "gradient estimate, one backward pass",
    "atp-qk": "the same with the softmax computed for queries and keys",
    "atp*": "the same, averaged over backward passes without the gradient through one layer",
}
"""By what they cost: for L layers ``exact`` about L * heads / 2 passes, ``atp*`` L backward passes, the others one."""


def score_nodes(
    model: Model,
    task: Task,
    part: str,
    *,
    method: str = "atp-qk",
    positions: str | tuple[int, ...] = "all",
    metric: str | None = None,
    progress: Progress | None = None,
) -> HeadScores:
    """Mean size of the effect of corrupting ``part`` (``q``, ``k``, ``v`` or ``z``) of every head at ``positions``, in the metric's unit.

    Keys and values that heads share count for each, as if every head had its own copy. Raises LookupError for unknown parts, methods,
    positions and metrics; ValueError for a metric without a gradient (estimates) and what ``score_edges`` refuses.
    """
    import torch

    from interp.engine.edges.edge_patching import graph_of
    from interp.engine.edges.residual_decomposition import decompose_task
    from interp.engine.gradients.attribution_patching import answer_value, check_gradient, z_gradients
    from interp.engine.gradients.qk_fix import (
        NODE_KINDS,
        ResidualChange,
        atp_estimates,
        corrupted_z,
        qk_fix_estimates,
        resume_changes,
    )
    from interp.engine.sweep.sweep import check_outcome
    from interp.metrics.outcomes import OUTCOMES
    from interp.models.model import record_of
    from interp.tasks.positions import position_mask

    check_name(method, NODE_METHODS, "method")
    check_name(part, NODE_KINDS, "part of a head")
    outcome, n_layers = OUTCOMES.get(metric or task.metric), graph_of(model).n_layers
    check_outcome(task, outcome)
    check_pairs(task)
    if method != "exact":
        check_gradient(outcome)
    found, ends = np.zeros((n_layers, model.facts.n_heads)), np.empty((2, len(task)))
    dropped = tuple(range(n_layers)) if method == "atp*" and n_layers > 1 else (None,)
    estimate = atp_estimates if method == "atp" else qk_fix_estimates
    with model.lock, torch.no_grad():
        for rows, decomposition, read in decompose_task(model, task, outcome, progress):
            clean, examples = decomposition.clean, [task.examples[r] for r in rows]
            where = position_mask(positions, examples)[:, -clean.n :].to(model.device)
            both = read(decomposition.ends)
            ends[:, rows] = both.cpu().double().numpy()
            passes = []
            if method != "exact":
                passes = z_gradients(
                    model, examples, answer_value(outcome, examples, model), last=True, dropped_layers=dropped
                )[2]
            for layer in range(n_layers):
                if method == "exact":
                    z = corrupted_z(decomposition, layer, part, where) - clean.z[layer]
                    changes = [ResidualChange(layer, True, added) for added in decomposition.written(layer, z).unbind(2)]
                    sizes = (read(resume_changes(decomposition, changes)) - both[:1]).abs()
                else:
                    slopes = torch.stack([gradients[layer][:, -clean.n :] for gradients in passes])
                    sizes = estimate(decomposition, layer, part, where, slopes).abs().sum(0) / max(1, len(dropped) - 1)
                found[layer] += sizes.sum(1).cpu().double().numpy() / len(task)
    check_finite_and_gap(model, outcome.name, ends, found)
    arguments = {**task.provenance, "method": method, "positions": positions, "ablation": "counterfactual"}
    record = record_of(model, task=task.name, arguments=arguments, interventions=(f"corrupted {part}",), metric=outcome.name)
    return HeadScores(f"size of the effect of {part}", found, outcome.unit, (0.0, None), record)


def score_positions(model: Model, task: Task, head: Head, part: str, *, metric: str | None = None) -> TokenScores:
    """Estimated effect of corrupting ``part`` of one head at each position by itself, example by example, with the softmax computed
    (``atp-qk``); negative = it helped. Effects of keys at several positions together are not the sum of these.

    Memory grows with the square of the length, for this head alone. Raises as ``score_nodes``.
    """
    import torch

    from interp.engine.edges.residual_decomposition import decompose_task
    from interp.engine.gradients.attribution_patching import answer_value, check_gradient, z_gradients
    from interp.engine.gradients.qk_fix import NODE_KINDS, position_estimates
    from interp.engine.sweep.sweep import check_outcome
    from interp.metrics.outcomes import OUTCOMES
    from interp.models.model import record_of

    check_name(part, NODE_KINDS, "part of a head")
    head = model.facts.check_head(Head(*head))
    model.facts.check_causal("A gradient")
    outcome = OUTCOMES.get(metric or task.metric)
    check_outcome(task, outcome)
    check_gradient(outcome)
    check_pairs(task)
    found, ends = np.full((len(task), max(task.by_length())), np.nan), np.empty((2, len(task)))
    with model.lock, torch.no_grad():
        for rows, decomposition, read in decompose_task(model, task, outcome):
            examples, length = [task.examples[r] for r in rows], len(task.examples[rows[0]].clean)
            gradient = z_gradients(model, examples, answer_value(outcome, examples, model), last=True)[2][0][head.layer]
            ends[:, rows] = read(decomposition.ends).cpu().double().numpy()
            n = decomposition.clean.n
            found[rows, :length] = 0.0  # positions before the first that differs
            some = position_estimates(decomposition, head.layer, head.head, part, gradient[:, -n:]).cpu().double().numpy()
            found[rows, length - n : length] = some
            check_finite(model, outcome.name, some)
    words = [model.to_str_tokens(e.clean) if model.tokenizer else [str(i) for i in e.clean] for e in task]
    tokens = tuple((*row, *[""] * (found.shape[1] - len(row))) for row in words)
    check_finite_and_gap(model, outcome.name, ends)
    arguments = {**task.provenance, "method": "atp-qk", "head": str(head), "ablation": "counterfactual"}
    record = record_of(model, task=task.name, arguments=arguments, interventions=(f"corrupted {part}",), metric=outcome.name)
    name = f"estimated effect of {part} of {head}"
    return TokenScores(name, found, tokens, outcome.unit, (None, None), record, nan_reason="padding is no token")
