"""Heads that need the far context: what it costs to leave them only the first and the recent tokens.

DuoAttention learns a gate for each key/value head that chooses between the two patterns; here one head at a time is cut, exactly, and
nothing is learnt. A prompt holds two passages, one far back and one in the window, and its counterfactual asks for the other one. The
cut takes the same text away in both, so that a head which does not fetch what is asked for is changed alike, and far and near can be
traded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from interp import interventions
from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.null_threshold import prompt_digests
from interp.detectors.support.passage_pairs import PassagePrompts, asked, passage_swap_threshold
from interp.engine.forward.run import record_of
from interp.engine.sweep.sweep import sweep
from interp.heads import HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.tasks.task import Example, Task

if TYPE_CHECKING:
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model


@detector()
def far_context(
    model: Model,
    *,
    task: str | Task = "needle",
    n_prompts: int = 96,
    n_sink: int = 4,
    n_recent: int | None = None,
    by_kv_group: bool = False,
    least: float = 0.01,
    gold: str = "needle",
    question: str = "question",
    n_null_draws: int = 99,
    rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads that need the far context.

    Score: KL(full || cut) in nats of the next-token distribution, when one head sees the first ``n_sink`` tokens and the last ``n_recent``
    (default: half of the shortest prompt) alone, at every position; mean over prompts whose question asks for a passage that is wholly
    outside, while the competing one is inside. ``control`` is the same where the near passage is asked for. With ``by_kv_group`` all
    query heads of a key/value head are cut together, as in DuoAttention, and each has the KL of its group. Prompts without one
    passage on either side are left out; ``details`` counts them.

    The paper has no threshold: it keeps a share of the gates. Here far and near are traded (``_passages.py``): in a share ``rate`` of
    models that do not fetch what is asked for, by default 0.05, at least one head lies above the threshold (measured on 260 untrained
    models: in 0.015 of them). However sure a change is, it counts from ``least`` on: below 0.01 nats no more than 0.07 of the
    probability moves from some tokens to others (Pinsker). Raises ValueError for an encoder and where no prompt can be used.
    Source: arXiv 2410.10819.
    """
    found = asked(model, "streaming", task, n_prompts, gold, question, seed)
    window = min(len(e.clean) for e in found.task) // 2 if n_recent is None else n_recent
    pairs = list(_far_and_near(found, n_sink, window))
    if not pairs:
        raise ValueError(
            f"No prompt of task {found.task.name!r} has one passage outside its first {n_sink} and last {window} tokens and the other "
            f"inside the last {window}, with a corrupted twin that asks for that one: change n_recent, or take longer prompts."
        )
    both = replace(found.task, examples=tuple(side for sides in zip(*pairs, strict=True) for side in sides))
    heads, size = model.facts.heads(), model.facts.group_size if by_kv_group else 1
    groups = [heads[i : i + size] for i in range(0, len(heads), size)]
    variants = [(interventions.streaming(group, n_sink, window),) for group in groups]
    options = {"n_sink": n_sink, "n_recent": window, "by_kv_group": by_kv_group, "least": least, "gold": gold}
    record = record_of(
        model,
        task=both.name,
        arguments={**both.arguments, "n_examples": len(both), "task_digest": both.digest(), **options},
        interventions=(variants[0][0].label,),
        metric="streaming",
        seed=seed,
    )
    kl = sweep(model, both, variants, OUTCOMES.get("kl"), record=record, progress=progress).values
    far, near = np.repeat(kl.T, size, axis=1).reshape(2, len(pairs), model.facts.n_layers, model.facts.n_heads)
    threshold, real_rate = passage_swap_threshold(far, near, n_null_draws, rate, seed)
    return Detection(
        "streaming",
        HeadScores("streaming", far.mean(0), "nats", (0.0, None), record),
        HeadScores("streaming", near.mean(0), "nats", (0.0, None), record),
        max(threshold, least),
        real_rate,
        details={"n_examples": len(pairs), "left_out": len(found.task) - len(pairs), "n_recent": window},
        prompts=prompt_digests(e.clean for e in both),
    )


def _far_and_near(found: PassagePrompts, n_sink: int, window: int) -> Iterator[tuple[Example, Example]]:
    """For each prompt that can be used, the side that asks for the far passage and the one that asks for the near passage."""
    for example, gold, competing in zip(found.task, found.gold, found.competing, strict=True):
        start = len(example.clean) - window
        far = [n_sink <= span[0] and span[1] <= start for span in (gold, competing)]
        near = [span[0] >= start for span in (gold, competing)]
        other = replace(example, clean=example.corrupted, corrupted=example.clean)
        if example.clean == example.corrupted:
            continue
        if far[0] and near[1]:
            yield example, other
        elif far[1] and near[0]:
            yield other, example
