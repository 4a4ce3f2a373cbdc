"""Query-focused retrieval heads, which attend from the question to the passage that answers it.

Nothing is copied or generated, so the score also finds heads that fetch more than words. Question rows also attend to each
other, to sinks and to what all passages share; the attention of the same question with empty content ("N/A") is subtracted.
Tokens whose calibrated score is far below those of their passage are artefacts of the subtraction and count as 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.gold_and_competing_passages import Scores, passage_detection, passage_prompts
from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.attention.last_query_rows_and_prefix_cache import read_last_queries
from interp.engine.sweep.sweep import Progress
from interp.engine.sweep.work_units import batches
from interp.models.model import Model
from interp.tasks.task import Example, Span, Task
from interp.tasks.token_batch import as_batch
from interp.tasks.tokenise import continuations


@detector(default_task="needle")
def query_retrieval(
    model: Model,
    *,
    task: str | Task = "needle",
    n_prompts: int = 64,
    gold: str = "needle",
    question: str = "question",
    null_query: str = "N/A",
    calibrate: bool = True,
    mask_outliers: bool = True,
    n_null_draws: int = 99,
    fwer: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads by the attention of the question's rows to the passage that answers it, minus that of an empty question, -1 to 1.

    The sum over the tokens ``s`` of the passage ``gold`` (a mark) of the mean over the rows ``t`` of ``question`` (a mark or
    ``end``) of ``A[t, s]``; minus the same with ``null_query`` in place of the mark ``query`` (without it, of the whole
    question); without tokens below mean - 2 standard deviations of their passage; mean over prompts.
    ``extra_scores["uncalibrated"]`` is the paper's formula, without ``calibrate`` and ``mask_outliers``, which are its
    code's. ``control`` scores the competing passage.

    The paper uses the 16 highest heads below 10B parameters, 32 at 70B, and no threshold; here passages are swapped
    (``gold_and_competing_passages``, which also says what prompts need) at the family-wise error rate ``fwer``. Of 200 untrained models
    0.045, and of all heads 0.003, exceed it; without ``calibrate`` 0.12 of the GPT-2s, whose heads may match a name with
    itself. Raises ValueError for an encoder and for prompts without two passages. Source: arXiv 2506.09944.
    """
    prompts = passage_prompts(model, "query_retrieval", task, n_prompts, gold, question, seed)
    n = len(prompts.task)
    report = _counted(progress, 0, n * (1 + calibrate))
    uncalibrated = scores = question_attention(model, prompts.task, prompts.question, report)
    null_tokens: Sequence[int] = []
    if calibrate:
        null_tokens = continuations(model, "The", [null_query])[0] or model.to_tokens_without_special(null_query)
        examples, questions = zip(*map(_emptied, prompts.task, prompts.question, [null_tokens] * n), strict=True)
        empty = replace(prompts.task, examples=examples)
        baseline = question_attention(model, empty, questions, _counted(progress, n, 2 * n))
        scores = [own - other for own, other in zip(uncalibrated, baseline, strict=True)]
    options: dict[str, Any] = {"gold": gold, "question": question, "null_query": null_query}
    options |= {"calibrate": calibrate, "mask_outliers": mask_outliers}
    return passage_detection(
        model,
        "query_retrieval",
        prompts,
        _sums(scores, prompts.gold, mask_outliers),
        _sums(scores, prompts.competing, mask_outliers),
        unit="weight",
        bounds=(-1.0, 1.0),
        extra_scores={"uncalibrated": (_sums(uncalibrated, prompts.gold, False), "weight", (0.0, 1.0))},
        options=options,
        details={"null_tokens": list(null_tokens), "heads_in_the_paper": "the 16 highest below 10B parameters, 32 at 70B"},
        n_null_draws=n_null_draws,
        fwer=fwer,
        seed=seed,
    )


def question_attention(
    model: Model, task: Task, questions: Sequence[Span], report: Callable[[int], object] | None = None
) -> list[Float[np.ndarray, "n_layers n_heads _"]]:
    """For each example the mean attention from the rows of its question to every token before it, [n_layers n_heads tokens].

    ``report`` receives the number of examples done.
    """
    attention: list[np.ndarray] = [np.empty(0)] * len(task)
    done = 0
    for example_ids in batches(task):
        tokens = as_batch(model, [task.examples[i] for i in example_ids]).tokens
        table = _mean_rows(model, tokens, [questions[i] for i in example_ids]).cpu().numpy()
        for column, i in enumerate(example_ids):
            attention[i] = table[:, column, :, : questions[i][0]].astype("float64")
        done += len(example_ids)
        if report is not None:
            report(done)
    return attention


def _counted(progress: Progress | None, before: int, total: int) -> Callable[[int], object] | None:
    return None if progress is None else lambda done: progress(before + done, total)


def _mean_rows(model: Model, tokens: Tensor, spans: Sequence[Span]) -> Float[Tensor, "n_layers batch n_heads pos"]:
    """The mean over a span of rows of each text, accumulated block by block."""
    share = torch.zeros(tokens.shape, device=tokens.device)
    for row, (start, end) in enumerate(spans):
        share[row, start:end] = 1 / (end - start)
    table = torch.zeros(model.facts.n_layers, len(tokens), model.facts.n_heads, tokens.shape[1], device=tokens.device)

    def read(block: AttentionRows) -> None:
        part = torch.einsum("bq,bhqk->bhk", share[:, block.queries], block.pattern)
        table[block.layer.index, :, block.heads, block.keys] += part

    read_last_queries(model, tokens, tokens.shape[1] - min(start for start, _ in spans), read)
    return table


def _emptied(example: Example, question: Span, null_tokens: Sequence[int]) -> tuple[Example, Span]:
    """The example with ``null_tokens`` in place of its query, and the span of its question there."""
    start, end = example.marks.get("query", question)
    if not question[0] <= start < question[1]:
        start, end = question
    tokens = (*example.clean[:start], *null_tokens, *example.clean[end:])
    longer = len(tokens) - len(example.clean)
    return replace(example, clean=tokens, corrupted=tokens, marks={}), (question[0], question[1] + longer)


def _sums(scores: Sequence[np.ndarray], spans: Sequence[Span], mask_outliers: bool) -> Scores:
    return np.stack([passage_sum(own[..., slice(*span)], mask_outliers) for own, span in zip(scores, spans, strict=True)])


def passage_sum(scores: Float[np.ndarray, "*heads n"], mask_outliers: bool) -> Float[np.ndarray, "*heads"]:
    """The sum over the tokens of a passage; ``mask_outliers`` leaves out those below mean - 2 (sample) standard deviations."""
    if mask_outliers and scores.shape[-1] > 1:
        lowest = scores.mean(-1, keepdims=True) - 2 * scores.std(-1, ddof=1, keepdims=True)
        scores = np.where(scores < lowest, 0.0, scores)
    return scores.sum(-1)
