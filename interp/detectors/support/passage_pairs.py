"""Prompts that hold two passages of one form, of which the question asks for one: what retrieval is scored on beside needles.

The gold passage is a mark. The competing one is the mark ``competing`` or, where there is none, the span that lies around the
distractor as the gold one lies around the answer. To a model that cannot tell which of them is asked for they are alike: with their
scores traded in half of the prompts, drawn anew for every shuffle, a head scores as well as with the right ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp.detectors.support.detection import Detection
from interp.detectors.support.null_threshold import null_threshold, prompt_digests
from interp.engine.forward.positions import resolve_positions
from interp.engine.forward.run import record_of
from interp.heads import HeadScores
from interp.tasks import make_task
from interp.tasks.task import Example, Span, Task

if TYPE_CHECKING:
    import pandas as pd

    from interp.models.model import Model

ROUNDING = 1e-6
"""Share of the highest score that is taken for rounding, and found in no head."""

Scores = Float[np.ndarray, "n_prompts n_layers n_heads"]


@dataclass(frozen=True, eq=False)
class PassagePrompts:
    """A task with the two passages and the question of each example, as half-open spans."""

    task: Task
    gold: list[Span]
    competing: list[Span]
    question: list[Span]

    @property
    def depths(self) -> list[float]:
        """Where the gold passage begins, in percent of the text before the question, to the nearest ten."""
        return [10.0 * round(10 * start / end) for (start, _), (end, _) in zip(self.gold, self.question, strict=True)]


def asked(model: Model, role: str, task: str | Task, n_prompts: int, gold: str, question: str, seed: int) -> PassagePrompts:
    """The spans of a task, by name or as an object; ``gold`` is a mark, ``question`` a mark or ``end``.

    Raises ValueError for an encoder, and where an example has no two passages before its question.
    """
    model.facts.check_causal(f"The detector of {role}")
    if isinstance(task, str):
        task = make_task(task, model, n_prompts, seed)
    for mark in {gold, question} - {"end", *task.marks}:
        raise ValueError(
            f"The detector of {role} needs prompts that mark {mark!r}, and those of task {task.name!r} mark "
            f"{', '.join(task.marks) or 'nothing'}: name one of these, or take another task."
        )
    rows = [resolve_positions(question, len(e.clean), e.marks) for e in task]
    found = PassagePrompts(
        task,
        [e.marks[gold] for e in task],
        [_competing(task, i, gold) for i in range(len(task))],
        [(its[0], its[-1] + 1) for its in rows],
    )
    for i, (own, other, its) in enumerate(zip(found.gold, found.competing, found.question, strict=True)):
        if max(own[1], other[1]) > its[0]:
            raise ValueError(
                f"Task {task.name!r}, example {i}: the question begins at {its[0]}, and a passage ends after that."
            )
    return found


def _competing(task: Task, i: int, gold: str) -> Span:
    example = task.examples[i]
    if "competing" in example.marks:
        return example.marks["competing"]
    start, end = example.marks[gold]
    inside = [at for at in _places(example, example.answers) if start <= at < end]
    outside = [at for at in _places(example, example.distractors) if not start <= at < end]
    shift = outside[-1] - inside[-1] if inside and outside else 0
    if start + shift < 0 or abs(shift) < end - start:
        raise ValueError(
            f"Task {task.name!r}, example {i} has no second passage like {gold!r}: the first answer must stand in {gold!r} and the "
            f"first distractor at the same place of the other passage, or this must be marked 'competing'."
        )
    return start + shift, end + shift


def _places(example: Example, tokens: Sequence[int]) -> list[int]:
    return [at for at, token in enumerate(example.clean) if token in tokens[:1]]


def detection(
    model: Model,
    role: str,
    found: PassagePrompts,
    right: Scores,
    wrong: Scores,
    *,
    unit: str,
    bounds: tuple[float | None, float | None],
    parts: Mapping[str, tuple[Scores, str, tuple[float | None, float | None]]],
    options: Mapping[str, Any],
    details: Mapping[str, Any],
    n_null_draws: int,
    rate: float,
    seed: int,
) -> Detection:
    """What was found, from the scores of each prompt with its gold passage and with the competing one; ``parts`` are (scores, unit,
    bounds)."""
    threshold, real_rate = passage_swap_threshold(right, wrong, n_null_draws, rate, seed)
    arguments = {**found.task.arguments, "n_examples": len(found.task), "task_digest": found.task.digest(), **options}
    record = record_of(model, task=found.task.name, arguments=arguments, metric=role, seed=seed)
    return Detection(
        role,
        HeadScores(role, right.mean(0), unit, bounds, record),
        HeadScores(role, wrong.mean(0), unit, bounds, record),
        threshold,
        real_rate,
        parts={name: HeadScores(name, values.mean(0), own, limits, record) for name, (values, own, limits) in parts.items()},
        tables={"depths": by_depth(right, found.depths)},
        details={"n_examples": len(found.task), **details},
        prompts=prompt_digests(e.clean for e in found.task),
    )


def passage_swap_threshold(right: Scores, wrong: Scores, n_null_draws: int, rate: float, seed: int) -> tuple[float, float]:
    """The threshold for the mean of ``right``, and its rate, from traded ``right`` and ``wrong``.

    A head that plays the role scores in the shuffles too, being right in half of the prompts. So the heads above the threshold are left
    out of the shuffles and it is taken again, until no more are found (step-down, Westfall and Young 1993); this keeps the rate.
    """
    traded = np.random.default_rng(seed).random((n_null_draws, len(right))) < 0.5
    scores = right.mean(0)
    shuffled = scores + np.tensordot(traded, wrong - right, 1) / len(right)
    found = np.zeros(scores.shape, bool)
    while True:
        threshold, real_rate, _ = null_threshold(np.where(found, -np.inf, shuffled), rate)
        above = scores > threshold
        if above.all() or (above == found).all():
            return max(threshold, ROUNDING * float(np.abs(scores).max())), real_rate
        found = above


def by_depth(scores: Scores, depths: Sequence[float]) -> pd.DataFrame:
    """One row a head and depth: ``layer head depth score n``, the mean over the prompts of that depth."""
    import pandas as pd

    layers, heads = (part.ravel().astype("int32") for part in np.indices(scores.shape[1:]))
    places = np.array(depths)
    return pd.concat(
        [
            pd.DataFrame({"layer": layers, "head": heads, "depth": depth, "score": here.mean(0).ravel(), "n": len(here)})
            for depth, here in ((depth, scores[places == depth]) for depth in np.unique(places))
        ],
        ignore_index=True,
    )
