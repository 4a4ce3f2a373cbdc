"""Path patching: what reaches a receiver from each head without passing through another head (arXiv 2211.00593, 2310.08744).

For each sender there are two runs of the clean prompts. In the first the sender writes, at the chosen positions, what it wrote on the
corrupted prompt; all other heads write what they wrote on the clean one, and MLPs are recomputed (or kept, too). In the second only the
receivers (queries, keys or values of heads, at the same positions) are what the first run made of them; everything behind them is computed
anew. Where the receiver is the logits, the first run is all. ``effect = metric(patched) - metric(clean)``; negative = the path helped.
Divided by ``gap``, corrupted minus clean, it is the share of the whole swap: 0 = no effect, 1 = as the corrupted run.

Keys and values of grouped-query heads are counted for each query head, as if every head had its own copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from interp.circuits.edge_ablation import check_pairs
from interp.circuits.edge_scores import FLOOR, check_gap
from interp.graph import QKV, Node
from interp.heads import Head, HeadScores

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.edges.residual_decomposition import ResidualDecomposition
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.tasks.task import Task

Receiver = tuple[Head, str]
LOGITS_RECEIVER = "logits"


def path_patch(
    model: Model,
    task: Task,
    receivers: Sequence[Receiver] | str = LOGITS_RECEIVER,
    *,
    positions: str | tuple[int, ...] = "end",
    freeze_mlps: bool = False,
    metric: str | None = None,
    progress: Progress | None = None,
) -> HeadScores:
    """The mean effect of every head as a sender, in the metric's unit; heads that come before no receiver have no number.

    ``receivers`` are ``logits``, or pairs of a head and ``q``, ``k`` or ``v``. Sender and receivers are patched at the same ``positions``:
    keys and values must be asked for where they are looked at, not at the end. ``record.arguments["gap"]`` is the whole swap.
    Raises LookupError for unknown heads, positions and metrics; ValueError for receivers that no head comes before, and for what
    ``score_edges`` refuses.
    """
    import torch

    from interp.engine.edges.edge_patching import graph_of
    from interp.engine.edges.residual_decomposition import decompose_task
    from interp.engine.sweep.sweep import check_outcome
    from interp.metrics.outcomes import OUTCOMES
    from interp.models.model import record_of
    from interp.tasks.positions import position_mask

    outcome, graph = OUTCOMES.get(metric or task.metric), graph_of(model)
    check_outcome(task, outcome)
    check_pairs(task)
    chosen = _check(model, receivers)
    top = graph.n_layers if receivers == LOGITS_RECEIVER else max(head.layer for head, _ in chosen)
    senders = [head for head in model.facts.heads() if head.layer < top]
    if not senders:
        raise ValueError(f"No head comes before {', '.join(str(head) for head, _ in chosen)}: take receivers of a later layer.")
    values, ends = np.empty((len(senders), len(task))), np.empty((2, len(task)))
    with model.lock, torch.inference_mode():
        for rows, decomposition, read in decompose_task(model, task, outcome, progress):
            batch, n = decomposition.clean.positions.shape
            where = position_mask(positions, decomposition.clean.examples)[:, -n:].to(model.device)
            step = decomposition.runs_per_batch
            for first in range(0, len(senders), step):
                some = senders[first : first + step]
                arrived = _patched_residuals(decomposition, some, where, {head.layer for head, _ in chosen}, freeze_mlps)
                last = (
                    arrived[top][:, -1]
                    if receivers == LOGITS_RECEIVER
                    else _downstream_residual(decomposition, chosen, arrived, where, len(some))
                )
                values[first : first + step, rows] = read(last.unflatten(0, (len(some), batch))).cpu().double().numpy()
            ends[:, rows] = read(decomposition.ends).cpu().double().numpy()
    check_gap(ends[0], ends[1], outcome.name)
    arguments = {**task.provenance, "positions": positions}
    arguments |= {
        "receivers": [f"{head}.{part}" for head, part in chosen] or LOGITS_RECEIVER,
        "mlps": "kept" if freeze_mlps else "recomputed",
    }
    arguments |= {"gap": float(ends[1].mean() - ends[0].mean()), "ablation": "counterfactual"}
    record = record_of(model, task=task.name, arguments=arguments, interventions=("patched path",), metric=outcome.name)
    effects = np.full((graph.n_layers, graph.n_heads), np.nan)
    effects[tuple(np.array(senders).T)] = (values - ends[0]).mean(1)
    reason = "" if top == graph.n_layers else "only heads before a receiver reach it"
    return HeadScores("effect of the path", effects, outcome.unit, (None, None), record, reason)


def path_patch_stages(
    model: Model,
    task: Task,
    stages: Sequence[tuple[str, str | tuple[int, ...]]],
    *,
    k: int,
    freeze_mlps: bool = False,
    metric: str | None = None,
) -> list[HeadScores]:
    """Path patching from the logits backwards: first the heads that reach the logits; then, for each (part, positions) of ``stages``,
    those that reach that part of the ``k`` heads of largest effect in the stage before. Heads without an effect and those of
    the first layer are no receivers; where none is left, the list ends.
    """
    found = [path_patch(model, task, freeze_mlps=freeze_mlps, metric=metric)]
    for part, positions in stages:
        least = FLOOR * np.nanmax(np.abs(found[-1].values))
        receivers = [(head, part) for head in found[-1].top(k) if abs(found[-1][head]) > least and head.layer]
        if not receivers:
            break
        found.append(path_patch(model, task, receivers, positions=positions, freeze_mlps=freeze_mlps, metric=metric))
    return found


def _check(model: Model, receivers: Sequence[Receiver] | str) -> list[Receiver]:
    if receivers == LOGITS_RECEIVER:
        return []
    chosen = [] if isinstance(receivers, str) else [(model.facts.check_head(Head(*head)), part) for head, part in receivers]
    if not chosen or any(part not in QKV for _, part in chosen):
        raise ValueError(f"receivers={receivers!r}: give 'logits', or pairs of a head and one of {', '.join(QKV)}.")
    return chosen


def _patched_residuals(
    decomposition: ResidualDecomposition,
    senders: Sequence[Head],
    where: Bool[Tensor, "batch n"],
    layers: set[int],
    freeze_mlps: bool,
) -> dict[int, Float[Tensor, "rows n d_model"]]:
    """The stream that enters each of ``layers`` (and, at ``n_layers``, leaves the last block where no layer is asked for) in the run in
    which one sender is changed and all other heads are not; rows are senders, then prompts."""
    import torch

    from interp.engine.edges.edge_patching import graph_of

    clean, graph = decomposition.clean, graph_of(decomposition.model)
    added = (decomposition.added([graph.writer_index[Node.of(head)] for head in senders]) * where[..., None]).flatten(0, 1)
    own = torch.tensor([head.layer for head in senders], device=where.device).repeat_interleave(decomposition.batch)[
        :, None, None
    ]
    stop = max(layers, default=graph.n_layers)
    first = min(head.layer for head in senders)
    x, arrived = decomposition.expand(clean.residual[first], len(senders)), {}
    for layer in range(first, stop):
        if layer in layers:
            arrived[layer] = x
        attention = decomposition.expand(clean.attn_out[layer], len(senders))
        if not freeze_mlps:
            x = decomposition.block(layer, x, attention + added * (own == layer))
            continue
        after = (
            clean.residual[layer + 1] if layer + 1 < graph.n_layers else clean.last[:, None].expand_as(clean.residual[layer])
        )
        x = decomposition.expand(after, len(senders)) + added * (own <= layer)
    return {**arrived, stop: x}


def _downstream_residual(
    decomposition: ResidualDecomposition,
    receivers: Sequence[Receiver],
    arrived: dict[int, Float[Tensor, "rows n d_model"]],
    where: Bool[Tensor, "batch n"],
    times: int,
) -> Float[Tensor, "rows d_model"]:
    """The residual that predicts the answer when the receivers are what ``arrived`` makes of them and all behind them is computed anew."""
    import torch

    begin = min(arrived)
    x, here = decomposition.expand(decomposition.clean.residual[begin], times), where.repeat(times, 1)[:, None, :, None]
    for layer in range(begin, len(decomposition.layout.blocks)):
        made = decomposition.qkv(layer, x)
        parts = decomposition.per_query_head(made)
        if layer in arrived:
            new = decomposition.per_query_head(decomposition.qkv(layer, arrived[layer]))
            for part in QKV:
                heads = [head.head for head, of in receivers if (head.layer, of) == (layer, part)]
                parts[part][:, heads] = torch.where(here, new[part][:, heads], parts[part][:, heads])
        z = decomposition.attend(layer, *(parts[p] for p in QKV), like=made)
        x = decomposition.block(layer, x, decomposition.written(layer, z).sum(-2) + decomposition.biases[layer])
    return x[:, -1]
