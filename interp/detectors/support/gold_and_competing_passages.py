"""Prompts with a gold passage and a competing passage of the same form, one of which the question asks for.

The gold passage is a mark. The competing one is the mark ``competing`` or, without it, the span placed around the distractor
as the gold one is around the answer. The null swaps the two passages' scores in a random half of the prompts: a model that
cannot tell which passage the question asks for scores the same either way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.detectors.support.detection import Detection
from interp.detectors.support.null_threshold import null_threshold, prompt_digests
from interp.engine.sweep.outcome import check_single_tokens
from interp.engine.sweep.sweep import outcome_and_performance
from interp.heads import HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.records import RunRecord
from interp.statistics import independent_units
from interp.tasks import make_task
from interp.tasks.position_names import resolve_positions
from interp.tasks.task import Example, Span, Task

ROUNDING = 1e-6
"""Scores below this share of the highest one are rounding errors and never detected."""

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
        """Start of the gold passage in percent of the text before the question, rounded to tens."""
        return [10.0 * round(10 * start / end) for (start, _), (end, _) in zip(self.gold, self.question, strict=True)]


def passage_prompts(
    model: Model, role: str, task: str | Task, n_prompts: int, gold: str, question: str, seed: int
) -> PassagePrompts:
    """The passages of a task, given by name or as an object; ``gold`` is a mark, ``question`` a mark or ``end``.

    Raises ValueError for an encoder, answers of several tokens, and an example without two passages before its question.
    """
    model.facts.check_causal(f"The detector of {role}")
    if isinstance(task, str):
        task = make_task(task, model, n_prompts, seed)
    check_single_tokens(task.examples, "Detectors of retrieval")
    for mark in {gold, question} - {"end", *task.marks}:
        raise ValueError(
            f"{role} needs prompts with the mark {mark!r}, and task {task.name!r} has {', '.join(task.marks) or 'no marks'}: choose one "
            f"of these, or another task."
        )
    positions = [resolve_positions(question, len(e.clean), e.marks) for e in task]
    golds, competing = [e.marks[gold] for e in task], [_competing(task, i, gold) for i in range(len(task))]
    for i, (start, *_) in enumerate(positions):
        if max(golds[i][1], competing[i][1]) > start:
            raise ValueError(f"Task {task.name!r}, example {i}: a passage ends after the question begins at {start}.")
    return PassagePrompts(task, golds, competing, [(own[0], own[-1] + 1) for own in positions])


def _competing(task: Task, i: int, gold: str) -> Span:
    example = task.examples[i]
    if "competing" in example.marks:
        return example.marks["competing"]
    start, end = example.marks[gold]
    inside = [at for at in _occurrences(example, example.answers) if start <= at < end]
    outside = [at for at in _occurrences(example, example.distractors) if not start <= at < end]
    shift = outside[-1] - inside[-1] if inside and outside else 0
    if start + shift < 0 or abs(shift) < end - start:
        raise ValueError(
            f"Task {task.name!r}, example {i} has no second passage like {gold!r}: the first distractor must be at the same place in it as "
            f"the first answer in {gold!r}, or the passage must be marked 'competing'."
        )
    return start + shift, end + shift


def _occurrences(example: Example, tokens: Sequence[int]) -> list[int]:
    return [at for at, token in enumerate(example.clean) if token in tokens[:1]]


def with_performance(record: RunRecord, model: Model, task: Task) -> RunRecord:
    """The record with how well the model does the task, whatever the task's own metric needs."""
    _, performance = outcome_and_performance(model, task, OUTCOMES.get("answer_logprob"))
    return replace(record, baseline=asdict(performance))


def passage_detection(
    model: Model,
    role: str,
    prompts: PassagePrompts,
    gold_scores: Scores,
    competing_scores: Scores,
    *,
    unit: str,
    bounds: tuple[float | None, float | None],
    extra_scores: Mapping[str, tuple[Scores, str, tuple[float | None, float | None]]],
    options: Mapping[str, Any],
    details: Mapping[str, Any],
    n_null_draws: int,
    fwer: float,
    seed: int,
) -> Detection:
    """The detection from each prompt's scores for the gold and the competing passage; ``extra_scores`` are (scores, unit, bounds)."""
    threshold, actual_fwer = passage_swap_threshold(
        gold_scores, competing_scores, n_null_draws, fwer, seed, prompts.task.clusters
    )
    task = prompts.task
    record = record_of(model, task=task.name, arguments={**task.provenance, **options}, metric=role, seed=seed)
    record = with_performance(record, model, task)
    return Detection(
        role,
        HeadScores(role, gold_scores.mean(0), unit, bounds, record),
        HeadScores(role, competing_scores.mean(0), unit, bounds, record),
        threshold,
        actual_fwer,
        extra_scores={
            name: HeadScores(name, values.mean(0), own_unit, own_bounds, record)
            for name, (values, own_unit, own_bounds) in extra_scores.items()
        },
        tables={"depths": by_depth(gold_scores, prompts.depths)},
        details={"n_examples": len(task), **details},
        prompts=prompt_digests(e.clean for e in task),
    )


def passage_swap_threshold(
    gold_scores: Scores,
    competing_scores: Scores,
    n_null_draws: int,
    fwer: float,
    seed: int,
    clusters: Sequence[str] | None = None,
) -> tuple[Float[np.ndarray, "n_layers n_heads"], float]:
    """The threshold of each head's mean of ``gold_scores`` and their actual error rate, by swapping passages in half of the prompts, in
    all prompts of a cluster together."""
    units = independent_units(len(gold_scores), clusters)
    swapped = np.take(np.random.default_rng(seed).random((n_null_draws, units.max() + 1)) < 0.5, units, axis=1)
    scores = gold_scores.mean(0)
    null_scores = scores + np.tensordot(swapped, competing_scores - gold_scores, 1) / len(gold_scores)
    threshold, actual_fwer, _ = null_threshold(scores, null_scores, fwer)
    return np.maximum(threshold, ROUNDING * np.abs(scores).max()), actual_fwer


def by_depth(scores: Scores, depths: Sequence[float | int]) -> pd.DataFrame:
    """One row per head and depth: ``layer head depth score n``, the mean over the prompts of that depth."""
    layers, heads = (part.ravel().astype("int32") for part in np.indices(scores.shape[1:]))
    tables = []
    for depth in np.unique(depths):
        here = scores[np.equal(depths, depth)]
        columns = {"layer": layers, "head": heads, "depth": depth, "score": here.mean(0).ravel(), "n": len(here)}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
