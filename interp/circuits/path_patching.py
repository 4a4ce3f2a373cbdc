"""Path patching: the effect of each head on a receiver along paths through no other head (arXiv 2211.00593, 2310.08744).

Each sender takes two runs of the clean prompts. In the first, the sender's output at the chosen positions is that of the
corrupted prompt, all other heads keep their clean outputs, and MLPs are recomputed (or frozen as well). In the second, only the
receivers (queries, keys or values of heads, at the same positions) are set to their values in the first run, and everything
after them is recomputed. For the logits as receiver the first run suffices. ``effect = metric(patched) - metric(clean)``;
negative = the path helped. Divided by ``gap``, corrupted minus clean, it is a share of the total effect: 0 = none, 1 = all.

Keys and values of grouped-query heads are patched for each query head, as if every head had its own copy.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.clean_and_corrupted_runs import MeasuredBatch, measuring, to_numpy
from interp.circuits.edge_scores import NOISE_FLOOR
from interp.engine.edges.edge_patching import graph_of
from interp.engine.edges.residual_decomposition import ResidualDecomposition
from interp.engine.sweep.outcome import check_single_tokens
from interp.engine.sweep.sweep import Progress
from interp.graph import QKV, Node
from interp.heads import Head, HeadScores
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
    """Mean effect of every head as a sender, in the metric's unit; heads that precede no receiver are NaN.

    ``receivers`` is ``logits``, or pairs of a head and ``q``, ``k`` or ``v``. Sender and receivers are patched at the same
    ``positions``: for keys and values give the positions that are attended to, not the end. ``record.arguments["gap"]`` is the
    total effect. Raises LookupError for unknown heads, positions and metrics; ValueError for receivers that no head precedes,
    and for what ``score_edges`` refuses.
    """
    check_single_tokens(task.examples, "Patched paths")
    targets = _check_receivers(model, receivers)
    top = max((head.layer for head, _ in targets), default=model.facts.n_layers)
    senders = [head for head in model.facts.heads() if head.layer < top]
    if not senders:
        raise ValueError(f"No head precedes {', '.join(str(head) for head, _ in targets)}: use receivers in a later layer.")
    with measuring(model, task, metric) as measurement:
        outcomes = measurement.zeros(len(senders), len(task))
        for batch in measurement.batches(progress):
            step = batch.decomposition.runs_per_batch
            for first in range(0, len(senders), step):
                patched = _patched_outcomes(batch, senders[first : first + step], targets, positions, freeze_mlps)
                outcomes[first : first + step, batch.example_ids] = patched
    clean, corrupted = measurement.clean, measurement.corrupted
    arguments = {"positions": positions, "gap": float(corrupted.mean() - clean.mean())}
    arguments |= {"receivers": [f"{head}.{qkv}" for head, qkv in targets] or LOGITS_RECEIVER}
    effects = np.full((model.facts.n_layers, model.facts.n_heads), np.nan)
    effects[tuple(np.array(senders).T)] = (outcomes - clean).mean(1)
    reason = "" if not targets else "only heads before a receiver reach it"
    record = measurement.record("patched path", **arguments, mlps="frozen" if freeze_mlps else "recomputed")
    return HeadScores("effect of the path", effects, measurement.outcome.unit, (None, None), record, reason)


def path_patch_stages(
    model: Model,
    task: Task,
    stages: Sequence[tuple[str, str | tuple[int, ...]]],
    *,
    k: int,
    freeze_mlps: bool = False,
    metric: str | None = None,
) -> list[HeadScores]:
    """Path patching backwards from the logits: first the heads that reach the logits, then, for each (qkv, positions) of
    ``stages``, those that reach ``qkv`` of the ``k`` heads of largest effect in the stage before.

    Heads without an effect and those of the first layer are never receivers; the list ends where none is left.
    """
    scores = [path_patch(model, task, freeze_mlps=freeze_mlps, metric=metric)]
    for qkv, positions in stages:
        smallest = NOISE_FLOOR * np.nanmax(np.abs(scores[-1].values))
        receivers = [(head, qkv) for head in scores[-1].top(k) if abs(scores[-1][head]) > smallest and head.layer]
        if not receivers:
            break
        scores.append(path_patch(model, task, receivers, positions=positions, freeze_mlps=freeze_mlps, metric=metric))
    return scores


def _check_receivers(model: Model, receivers: Sequence[Receiver] | str) -> list[Receiver]:
    """The receivers with checked heads; none stands for the logits."""
    if receivers == LOGITS_RECEIVER:
        return []
    targets = [] if isinstance(receivers, str) else [(model.facts.check_head(Head(*head)), qkv) for head, qkv in receivers]
    if not targets or any(qkv not in QKV for _, qkv in targets):
        raise ValueError(f"receivers={receivers!r}: give 'logits', or pairs of a head and one of {', '.join(QKV)}.")
    return targets


def _patched_outcomes(
    batch: MeasuredBatch,
    senders: Sequence[Head],
    targets: Sequence[Receiver],
    positions: str | tuple[int, ...],
    freeze_mlps: bool,
) -> Float[np.ndarray, "n_senders batch"]:
    """The outcome with the paths from each sender to the receivers (none: the logits) patched."""
    decomposition, where = batch.decomposition, batch.mask(positions)
    reached = _patched_residuals(decomposition, senders, where, {head.layer for head, _ in targets}, freeze_mlps)
    if targets:
        last = _downstream_residual(decomposition, targets, reached, where, len(senders))
    else:
        last = reached[decomposition.model.facts.n_layers][:, -1]
    return to_numpy(batch.read(last.unflatten(0, (len(senders), -1))))


def _patched_residuals(
    decomposition: ResidualDecomposition,
    senders: Sequence[Head],
    where: Bool[Tensor, "batch n"],
    layers: set[int],
    freeze_mlps: bool,
) -> dict[int, Float[Tensor, "rows n d_model"]]:
    """The residual stream entering each of ``layers`` (without any: leaving the last block, at ``n_layers``) with one sender
    corrupted and all other heads clean; rows are senders, then prompts."""
    clean, graph = decomposition.clean, graph_of(decomposition.model)
    writers = [graph.writer_index[Node.of(head)] for head in senders]
    added = (decomposition.output_difference(writers) * where[..., None]).flatten(0, 1)
    own = torch.tensor([head.layer for head in senders], device=where.device)
    own = own.repeat_interleave(decomposition.batch)[:, None, None]
    entering = [*clean.residual, clean.final_residual[:, None].expand_as(clean.residual[0])]
    stop = max(layers, default=graph.n_layers)
    first = min(head.layer for head in senders)
    x, reached = decomposition.expand(clean.residual[first], len(senders)), {}
    for layer in range(first, stop):
        if layer in layers:
            reached[layer] = x
        attention = decomposition.expand(clean.attn_out[layer], len(senders))
        if not freeze_mlps:
            x = decomposition.block(layer, x, attention + added * (own == layer))
            continue
        x = decomposition.expand(entering[layer + 1], len(senders)) + added * (own <= layer)
    return {**reached, stop: x}


def _downstream_residual(
    decomposition: ResidualDecomposition,
    receivers: Sequence[Receiver],
    reached: dict[int, Float[Tensor, "rows n d_model"]],
    where: Bool[Tensor, "batch n"],
    times: int,
) -> Float[Tensor, "rows d_model"]:
    """The residual that predicts the answer with the receivers computed from ``reached`` and everything after them recomputed."""
    begin = min(reached)
    x, here = decomposition.expand(decomposition.clean.residual[begin], times), where.repeat(times, 1)[:, None, :, None]
    for layer in range(begin, len(decomposition.layout.blocks)):
        inputs = decomposition.qkv(layer, x)
        qkv = decomposition.per_query_head(inputs)
        if layer in reached:
            patched = decomposition.per_query_head(decomposition.qkv(layer, reached[layer]))
            for name in QKV:
                heads = [head.head for head, own in receivers if (head.layer, own) == (layer, name)]
                qkv[name][:, heads] = torch.where(here, patched[name][:, heads], qkv[name][:, heads])
        z = decomposition.attend(layer, *(qkv[name] for name in QKV), like=inputs)
        x = decomposition.block(layer, x, decomposition.head_outputs(layer, z).sum(-2) + decomposition.biases[layer])
    return x[:, -1]
