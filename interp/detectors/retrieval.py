"""Retrieval heads, which copy the answer out of a long context.

At the step that writes a token, the largest weight of a retrieval head is on that token in the needle. The score of a prompt is
the share of the needle's answer that a head copies, each position counted once; that of a head is the mean over the prompts the
model answers (arXiv 2404.15574). Needles are built from token ids, so spans are exact, at every length and depth of a grid; the
shared start of the haystack is run once. ``teacher`` mode reads the rows of the given answer in one pass and measures copying
given the answer; ``greedy`` mode generates, as the paper does. ``retrieval_null_wrong_targets`` is the null.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from interp.detectors.support.copied_answers import (
    CopiedAnswer,
    greedy_answer,
    shared_prefix_cache,
    stored_answer,
    teacher_forced_answer,
    text_of,
)
from interp.detectors.support.detection import Detection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.gold_and_competing_passages import by_depth
from interp.detectors.support.needle_prompts import hide_needles, trials_from_prompts
from interp.detectors.support.null_threshold import null_threshold, prompt_digests
from interp.detectors.support.retrieval_null_wrong_targets import wrong_target_scores
from interp.engine.sweep.sweep import Progress, UnitLedger
from interp.heads import Head, HeadScores
from interp.models.model import Model, record_of
from interp.tasks.task import Example, Task

LITERATURE_THRESHOLD = 0.1


@detector(default_task="needle")
def retrieval(
    model: Model,
    *,
    mode: str = "teacher",
    needles: str = "auto",
    haystack: str = "",
    n_lengths: int = 20,
    n_depths: int = 10,
    n_needles: int = 3,
    shortest: int = 64,
    longest: int = 0,
    min_recall: float | None = 0.5,
    max_new_tokens: int = 50,
    n_null_draws: int = 99,
    fwer: float = 0.05,
    prompts: Task | Sequence[Example] | None = None,
    mark: str = "needle",
    seed: int = 0,
    ledger: UnitLedger | None = None,
    progress: Progress | None = None,
) -> Detection:
    """Heads by the share of the needle's answer that they copy, 0 to 1; the paper's threshold is 0.1.

    Positions of the span count once; ``score_code`` counts steps instead, as the paper's code does, and exceeds 1 when an
    answer is repeated. ``frequency`` is the share of prompts with a copied token, ``attention`` the mean weight on the span.

    Prompts: ``n_needles`` at each of ``n_lengths`` lengths (``shortest`` to ``longest`` tokens; 0: the context, at most 5000)
    and ``n_depths`` depths, from the start to right before the question. ``needles`` is ``texts``, ``secrets``, ``repeats``,
    ``auto`` (the first of these that the tokenizer covers) or a JSONL file of needle, answer and question; ``haystack`` is a
    text file, by default uninformative sentences. Or give ``prompts`` whose first answer is in the span called ``mark``.

    Only prompts with more than ``min_recall`` of the answer right count (None: all), among predicted tokens in ``teacher``
    mode, among up to ``max_new_tokens`` generated tokens, up to the first newline, in ``greedy`` mode. Scores are conditional
    on that: compare ``details["accepted"]`` as well. Tables: ``trials``, ``cells`` (length x depth), ``depths`` (head x depth).

    The threshold holds the family-wise error rate ``fwer``. Answers that are in ``ledger`` are not read again. Raises ValueError for
    an encoder, an unknown mode, a needle that cannot be located in its sentence or exceeds the context, and a model that answers no
    prompt.
    """
    model.facts.check_causal("Retrieval")
    if mode not in ("teacher", "greedy"):
        raise ValueError(f"mode={mode!r} is unknown: use teacher or greedy.")
    if prompts is None:
        lengths = shortest, longest, n_lengths
        trials, prefix, kind = hide_needles(model, needles, haystack, lengths, n_depths, n_needles, seed)
    else:
        trials, prefix, kind = trials_from_prompts(model, [*prompts], mark), (), "prompts"
    prefix_cache = shared_prefix_cache(model, trials, prefix)
    answers = []
    write = teacher_forced_answer if mode == "teacher" else partial(greedy_answer, max_new_tokens=max_new_tokens)
    how = [model.facts.weights_digest, model.facts.dtype, mode, max_new_tokens, prefix_cache is not None]
    for trial in trials:
        own = partial(write, model, trial, prefix_cache(trial.n_shared_prefix) if prefix_cache else None)
        answers.append(stored_answer(trial, own, how, ledger))
        if progress:
            progress(len(answers), len(trials))
    accepted = _accepted(model, answers, min_recall)
    options = {"mode": mode, "min_recall": min_recall, "n_prompts": len(accepted), "needles": Path(kind).name}
    task = prompts.name if isinstance(prompts, Task) else "retrieval"
    record = record_of(model, task=task, arguments=options, metric="retrieval_score", seed=seed)

    def mean(name: str, unit: str, values: list[np.ndarray], most: float | None = 1.0) -> HeadScores:
        return HeadScores(name, np.mean(values, axis=0), unit, (0.0, most), record)

    used = [answers[i] for i in accepted]
    hits = [answer.score > 0 for answer in used]
    scores = mean("retrieval_score", "share of the answer", [answer.score for answer in used])
    threshold, actual_fwer, null_mean = null_threshold(
        scores.values, wrong_target_scores(used, n_null_draws, seed), fwer, pooled=True
    )
    return Detection(
        "retrieval",
        scores,
        HeadScores("retrieval_score", null_mean, "share of the answer", (0.0, 1.0), record),
        threshold,
        actual_fwer,
        LITERATURE_THRESHOLD,
        extra_scores={
            "score_code": mean("score_code", "share of the answer", [answer.score_code for answer in used], None),
            "frequency": mean("frequency", "share of prompts", hits),
            "attention": mean("attention", "weight", [answer.attention for answer in used]),
        },
        tables=_tables(model, answers, accepted),
        details={
            **options,
            "accepted": len(accepted),
            "total": len(answers),
            "prefix_shared": prefix_cache is not None,
            **_constancy(np.mean(hits, axis=0), scores.values > threshold),
            "note": "copying given the answer" if mode == "teacher" else "copying while generating",
        },
        prompts=prompt_digests(answers[i].trial.tokens for i in accepted),
    )


def _accepted(model: Model, answers: Sequence[CopiedAnswer], min_recall: float | None) -> list[int]:
    """Which answers count. Raises ValueError if none does."""
    accepted = [i for i, answer in enumerate(answers) if min_recall is None or answer.recall > min_recall]
    if not accepted:
        best = max(answer.recall for answer in answers)
        raise ValueError(
            f"{model.facts.name} answers none of {len(answers)} prompts: at most {best:.0%} of an answer is right, and "
            f"min_recall={min_recall} requires more than {min_recall:.0%}. Use easier needles or another model; min_recall=None counts "
            f"every prompt."
        )
    return accepted


def _constancy(frequency: np.ndarray, detected: np.ndarray) -> dict[str, list[str]]:
    """Heads that copy in every prompt, and detected heads that copy in some."""
    heads = [Head(*map(int, at)) for at in np.argwhere(frequency > 0)]
    return {
        "always_on": [str(head) for head in heads if frequency[head] == 1],
        "dynamic": [str(head) for head in heads if frequency[head] < 1 and detected[head]],
    }


def _tables(model: Model, answers: Sequence[CopiedAnswer], accepted: Sequence[int]) -> dict[str, pd.DataFrame]:
    """``trials``: one row per prompt; ``cells``: per length and depth; ``depths``: per head and depth, over accepted prompts."""
    rows = [
        (i, a.trial.needle, a.trial.length, a.trial.depth, i in accepted, a.recall, text_of(model, a.trial.answer), a.response)
        for i, a in enumerate(answers)
    ]
    columns = ["trial", "needle", "length", "depth", "accepted", "recall", "answer", "response"]
    trials = pd.DataFrame(rows, columns=columns)
    cells = trials.groupby(["length", "depth"], as_index=False)
    cells = cells.agg(n=("trial", "size"), accepted=("accepted", "sum"), recall=("recall", "mean"))
    depths = by_depth(np.stack([answers[i].score for i in accepted]), [answers[i].trial.depth for i in accepted])
    return {"trials": trials, "cells": cells, "depths": depths}
