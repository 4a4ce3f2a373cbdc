"""Heads that look from the question at the passage that answers it, and not at another of the same form.

Nothing is copied or generated, so that heads are found which fetch more than words. The rows of a question look at each other, at sinks
and at what all passages have in common as well; the same question with nothing in it ("N/A") does too, and is subtracted. A token whose
score then lies far below those of its passage is an accident of the subtraction, and counts 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.passage_pairs import Scores, asked, detection
from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.attention.last_query_rows import read_last_queries
from interp.engine.sweep.work_units import batches
from interp.tasks.task import Example, Span, Task
from interp.tasks.tokenise import continuations

if TYPE_CHECKING:
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model


@detector(default_task="needle")
def query_retrieval(
    model: Model,
    *,
    task: str | Task = "needle",
    n_prompts: int = 64,
    gold: str = "needle",
    question: str = "question",
    null: str = "N/A",
    calibrate: bool = True,
    mask_outliers: bool = True,
    n_null_draws: int = 99,
    rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads that look from the question at the passage that answers it.

    Score: the sum over the tokens ``s`` of the passage ``gold`` (a mark) of the mean over the rows ``t`` of the ``question`` (a mark or
    ``end``) of ``A[t, s]``; minus the same for a question that says ``null`` in the place of its mark ``query``, or of all of it where
    there is none; without tokens below mean - 2 standard deviations of their passage; mean over prompts. Unit: weight, -1 to 1.
    ``parts["plain"]`` is the paper's formula, without ``calibrate`` and ``mask_outliers``, which are its code's. ``control`` is the score
    of the competing passage.

    The paper has no threshold: it takes the 16 highest heads of models below 10B parameters, 32 at 70B. Here passages are traded
    (``_passages.py``, which also says what prompts must hold): in a share ``rate`` of models that do not tell them apart, by default
    0.05, at least one head lies above the threshold. Measured on 200 untrained models: in 0.045 of them, and 0.003 of all heads; without
    ``calibrate`` in 0.12 of the GPT-2s, whose heads may look at a name for being the same as their own. Raises ValueError for an encoder
    and for prompts without two passages. Source: arXiv 2506.09944.
    """
    found = asked(model, "query_retrieval", task, n_prompts, gold, question, seed)
    total = len(found.task) * (1 + calibrate)
    plain = scores = question_attention(model, found.task, found.question, lambda done: progress and progress(done, total))
    said = (continuations(model, "The", [null])[0] or model.to_tokens_without_special(null)) if calibrate else []
    if calibrate:
        examples, questions = zip(*map(_emptied, found.task, found.question, [said] * len(found.task)), strict=True)
        empty = replace(found.task, examples=examples)
        without = question_attention(model, empty, questions, lambda done: progress and progress(len(found.task) + done, total))
        scores = [own - other for own, other in zip(plain, without, strict=True)]
    right, wrong = (_sums(scores, spans, mask_outliers) for spans in (found.gold, found.competing))
    return detection(
        model,
        "query_retrieval",
        found,
        right,
        wrong,
        unit="weight",
        bounds=(-1.0, 1.0),
        parts={"plain": (_sums(plain, found.gold, False), "weight", (0.0, 1.0))},
        options={"gold": gold, "question": question, "null": null, "calibrate": calibrate, "mask_outliers": mask_outliers},
        details={"null_tokens": list(said), "heads_in_the_paper": "the 16 highest below 10B parameters, 32 at 70B"},
        n_null_draws=n_null_draws,
        rate=rate,
        seed=seed,
    )


def question_attention(
    model: Model, task: Task, questions: Sequence[Span], report: Callable[[int], object] | None = None
) -> list[Float[np.ndarray, "n_layers n_heads _"]]:
    """For each example the mean weight of the rows of its question on every token before it, [n_layers n_heads tokens].

    ``report`` is told the number of examples done.
    """
    found: list[np.ndarray] = [np.empty(0)] * len(task)
    done = 0
    for rows in batches(task):
        tokens = torch.tensor([task.examples[row].clean for row in rows], device=model.device)
        table = _mean_rows(model, tokens, [questions[row] for row in rows]).cpu().numpy()
        for i, row in enumerate(rows):
            found[row] = table[:, i, :, : questions[row][0]].astype("float64")
        done += len(rows)
        if report is not None:
            report(done)
    return found


def _mean_rows(model: Model, tokens: Tensor, spans: Sequence[Span]) -> Float[Tensor, "n_layers batch n_heads pos"]:
    """The mean over a span of rows of each text, read while they pass by."""
    share = torch.zeros(tokens.shape, device=tokens.device)
    for row, (start, end) in enumerate(spans):
        share[row, start:end] = 1 / (end - start)
    table = torch.zeros(model.facts.n_layers, len(tokens), model.facts.n_heads, tokens.shape[1], device=tokens.device)

    def read(block: AttentionRows) -> None:
        part = torch.einsum("bq,bhqk->bhk", share[:, block.queries], block.pattern)
        table[block.layer.index, :, block.heads, block.keys] += part

    read_last_queries(model, tokens, tokens.shape[1] - min(start for start, _ in spans), read)
    return table


def _emptied(example: Example, question: Span, null: Sequence[int]) -> tuple[Example, Span]:
    """The example with ``null`` in the place of what it asks about, and where its question is then."""
    start, end = example.marks.get("query", question)
    if not question[0] <= start < question[1]:
        start, end = question
    tokens = (*example.clean[:start], *null, *example.clean[end:])
    longer = len(tokens) - len(example.clean)
    return replace(example, clean=tokens, corrupted=tokens, marks={}), (question[0], question[1] + longer)


def _sums(scores: Sequence[np.ndarray], spans: Sequence[Span], mask_outliers: bool) -> Scores:
    return np.stack([passage_sum(own[..., slice(*span)], mask_outliers) for own, span in zip(scores, spans, strict=True)])


def passage_sum(scores: Float[np.ndarray, "*heads n"], mask_outliers: bool) -> Float[np.ndarray, "*heads"]:
    """The sum over the tokens of a passage, with ``mask_outliers`` without those below mean - 2 (sample) standard deviations."""
    if mask_outliers and scores.shape[-1] > 1:
        lowest = scores.mean(-1, keepdims=True) - 2 * scores.std(-1, ddof=1, keepdims=True)
        scores = np.where(scores < lowest, 0.0, scores)
    return scores.sum(-1)
