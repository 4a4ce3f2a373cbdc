"""Far-context heads, which need more than the first and the most recent tokens.

DuoAttention learns a gate per key/value head that chooses between full and streaming attention; here one head at a time is
restricted to streaming attention, exactly, and nothing is learned. Each prompt has one passage far back and one inside the
window; its counterfactual asks for the other one. Both lose the same text, so a head that does not fetch the requested
passage is affected alike: the null swaps far and near.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from interp import interventions
from interp.detectors.support.detection import Detection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.gold_and_competing_passages import (
    PassagePrompts,
    passage_prompts,
    passage_swap_threshold,
    with_performance,
)
from interp.detectors.support.null_threshold import prompt_digests
from interp.engine.sweep.sweep import Progress, UnitLedger, sweep
from interp.heads import HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.tasks.task import Example, Task

RESTRICTED = "restricted"
"""Mark of the positions that see more than a restricted head does: the earlier ones stay as they are, and are not computed again."""


@detector()
def far_context(
    model: Model,
    *,
    task: str | Task = "needle",
    n_prompts: int = 96,
    n_sink: int = 4,
    n_recent: int | None = None,
    by_kv_group: bool = False,
    min_score: float = 0.01,
    gold: str = "needle",
    question: str = "question",
    n_null_draws: int = 99,
    fwer: float = 0.05,
    seed: int = 0,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> Detection:
    """Heads by the KL divergence, in nats, that restricting them to the first ``n_sink`` and last ``n_recent`` tokens causes.

    KL(full || restricted) is that of the next-token distribution, with one head restricted at every position; mean over
    prompts whose question asks for a passage outside the window while the competing one is inside (``control``: the reverse).
    ``n_recent`` defaults to half of the shortest prompt. ``by_kv_group`` restricts all query heads of a key/value head
    together, as DuoAttention does. Prompts that do not have one passage on each side are skipped and counted in ``details``.

    The paper keeps a fixed share of heads; here the threshold swaps far and near (``gold_and_competing_passages``) and holds the family-
    wise error rate ``fwer``: among 260 untrained models 0.015 had a head above it. It is at least ``min_score``: below 0.01 nats at
    most 0.07 of the mass moves (Pinsker). Units that are in ``ledger`` are not computed again. Raises ValueError for an encoder and
    without usable prompts. arXiv 2410.10819.
    """
    prompts = passage_prompts(model, "far_context", task, n_prompts, gold, question, seed)
    window = min(len(e.clean) for e in prompts.task) // 2 if n_recent is None else n_recent
    pairs = list(_far_and_near(prompts, n_sink, window))
    if not pairs:
        raise ValueError(
            f"No prompt of task {prompts.task.name!r} has one passage outside its first {n_sink} and last {window} tokens and the other "
            f"inside the last {window}, with a corrupted prompt that asks for the latter: change n_recent, or use longer prompts."
        )
    sides = [_marked(side, n_sink + window) for sides in zip(*pairs, strict=True) for side in sides]
    both = replace(prompts.task, examples=tuple(sides))
    heads, size = model.facts.heads(), model.facts.group_size if by_kv_group else 1
    groups = [heads[i : i + size] for i in range(0, len(heads), size)]
    variants = [(interventions.streaming(group, n_sink, window, RESTRICTED),) for group in groups]
    options = {"n_sink": n_sink, "n_recent": window, "by_kv_group": by_kv_group, "min_score": min_score, "gold": gold}
    arguments, labels = {**both.provenance, **options}, (variants[0][0].label,)
    record = record_of(model, task=both.name, arguments=arguments, interventions=labels, metric="far_context", seed=seed)
    kl = sweep(model, both, variants, OUTCOMES.get("kl"), record=record, ledger=ledger, progress=progress).values
    record = with_performance(record, model, prompts.task)
    far, near = np.repeat(kl.T, size, axis=1).reshape(2, len(pairs), model.facts.n_layers, model.facts.n_heads)
    clusters = both.clusters[: len(pairs)] if both.clusters else None
    threshold, actual_fwer = passage_swap_threshold(far, near, n_null_draws, fwer, seed, clusters)
    scores, control = (HeadScores("far_context", side.mean(0), "nats", (0.0, None), record) for side in (far, near))
    details = {"n_examples": len(pairs), "n_skipped": len(prompts.task) - len(pairs), "n_recent": window}
    digests = prompt_digests(e.clean for e in both)
    return Detection(
        "far_context", scores, control, np.maximum(threshold, min_score), actual_fwer, details=details, prompts=digests
    )


def _far_and_near(prompts: PassagePrompts, n_sink: int, window: int) -> Iterator[tuple[Example, Example]]:
    """For each usable prompt, the version that asks for the far passage and the one that asks for the near passage."""
    for example, gold, competing in zip(prompts.task, prompts.gold, prompts.competing, strict=True):
        start = len(example.clean) - window
        far = [n_sink <= span[0] and span[1] <= start for span in (gold, competing)]
        near = [span[0] >= start for span in (gold, competing)]
        other = example.swapped()
        if example.clean == example.corrupted:
            continue
        if far[0] and near[1]:
            yield example, other
        elif far[1] and near[0]:
            yield other, example


def _marked(example: Example, start: int) -> Example:
    return replace(example, marks={**example.marks, RESTRICTED: (start, len(example.clean))})
