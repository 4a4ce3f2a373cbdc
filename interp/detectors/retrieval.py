"""Heads that copy an answer out of a long context: at the step that writes a token they look first of all at that token in the needle.

The score of a prompt is the share of the needle's answer that a head copied, each position counted once, and that of a head the mean over
the prompts that the model answers (arXiv 2404.15574). Needles are built from token ids, so that positions are exact, at every length and
depth of a grid; the haystack's beginning is run once, and of each prompt only what follows. ``teacher`` mode reads the rows of the given
answer in one pass: it measures copying given the answer; ``greedy`` mode lets the model write, as the paper does.

The threshold: the same prompts with wrong targets, of two kinds, of which the larger counts, since a head can be there by chance for what
stands at a place or for the place itself. A wrong word is another of the context (in given prompts: another prompt's answer), the same in
all prompts of one needle and found wherever it stands, which is rather too easy; a wrong place is as far from the start or the end of
the context in all prompts of one depth. Where all answers stand at one place the two cannot be told apart, and the threshold is high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.needles import Trial, hide_needles, trials_from_prompts
from interp.detectors.support.null_threshold import null_threshold, prompt_digests
from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.attention.last_query_rows import read_last_queries, verified_shared_prefix
from interp.engine.forward.run import record_of
from interp.engine.sweep.sweep import Progress
from interp.heads import Head, HeadScores
from interp.models.model import Model
from interp.tasks.task import Example, Task

if TYPE_CHECKING:
    import pandas as pd

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
    max_steps: int = 50,
    n_null_draws: int = 99,
    rate: float = 0.05,
    prompts: Task | Sequence[Example] | None = None,
    mark: str = "needle",
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """The share of the needle's answer that each head copies, 0 to 1; the paper calls heads from 0.1 on retrieval heads.

    A step copies when the key with the largest weight lies in the answer's span of the needle and is the token that is written. ``score``
    counts positions of the span once; ``score_code`` counts steps, as the paper's code does, and passes 1 when an answer is repeated.
    ``frequency`` is the share of prompts with at least one copied token, ``attention`` the mean weight on the span.

    Prompts: ``n_needles`` at each of ``n_lengths`` lengths (``shortest`` to ``longest`` tokens; 0: the context, at most 5000) and
    ``n_depths`` depths from the start to right before the question. ``needles`` are ``texts``, ``secrets``, ``repeats``, ``auto`` (the
    first of these that the model has words for) or a JSONL file with needle, answer and question; ``haystack`` is a text file, by default
    sentences without information. Or give ``prompts`` whose first answer stands in the span called ``mark``.

    Only prompts of which more than ``min_recall`` of the answer is right count (None: all): in ``teacher`` mode tokens that the model
    predicts, in ``greedy`` mode tokens among the at most ``max_steps`` that it writes, up to the first newline. Scores are conditional on
    that: compare models by ``details["accepted"]`` as well. Tables: ``trials``, ``cells`` (length x depth), ``depths`` (head x depth).

    False positives: on a model without the role some head passes the threshold in a share ``rate`` of models at most (0.05 by default).
    Raises ValueError for an encoder, an unknown mode, a needle that is not found in its sentence or is longer than the context, and a
    model that never answers.
    """
    model.facts.check_causal("Retrieval")
    if mode not in ("teacher", "greedy"):
        raise ValueError(f"mode={mode!r} is unknown: give teacher or greedy.")
    if prompts is None:
        trials, beginning, kind = hide_needles(
            model, needles, haystack, (shortest, longest, n_lengths), n_depths, n_needles, seed
        )
    else:
        trials, beginning, kind = trials_from_prompts(model, [*prompts], mark), (), "prompts"
    start = _beginning(model, trials, beginning)
    seen = []
    for trial in trials:
        cache = start(trial.shared) if start else None
        seen.append(_teacher(model, trial, cache) if mode == "teacher" else _greedy(model, trial, cache, max_steps))
        if progress:
            progress(len(seen), len(trials))
    accepted = [i for i, answer in enumerate(seen) if min_recall is None or answer.recall > min_recall]
    if not accepted:
        best = max(answer.recall for answer in seen)
        raise ValueError(
            f"{model.facts.name} answers none of {len(seen)} prompts: at most {best:.0%} of an answer was right, and more than "
            f"{min_recall:.0%} must be. Take needles that it can find, or a model that can; min_recall=None counts every prompt."
        )
    kept = [seen[i] for i in accepted]
    options = {"mode": mode, "min_recall": min_recall, "n_prompts": len(kept), "needles": Path(kind).name}
    task = prompts.name if isinstance(prompts, Task) else "retrieval"
    record = record_of(model, task=task, arguments=options, metric="retrieval_score", seed=seed)

    def numbers(name: str, unit: str, values: Float[np.ndarray, "n_layers n_heads"], most: float | None = 1.0) -> HeadScores:
        return HeadScores(name, values, unit, (0.0, most), record)

    scores = np.stack([answer.score for answer in kept])
    threshold, real_rate, control = null_threshold(_shuffled(kept, n_null_draws, seed), rate)
    hit = (scores > 0).mean(0)
    found = numbers("retrieval_score", "share of the answer", scores.mean(0))
    heads = [Head(*map(int, place)) for place in np.argwhere(hit > 0)]
    return Detection(
        "retrieval",
        found,
        numbers("retrieval_score", "share of the answer", control),
        threshold,
        real_rate,
        LITERATURE_THRESHOLD,
        parts={
            "score_code": numbers("score_code", "share of the answer", np.mean([a.score_code for a in kept], axis=0), None),
            "frequency": numbers("frequency", "share of prompts", hit),
            "attention": numbers("attention", "weight", np.mean([a.attention for a in kept], axis=0)),
        },
        tables=_tables(model, seen, accepted),
        details={
            **options,
            "accepted": len(kept),
            "total": len(seen),
            "beginning_shared": start is not None,
            "always_on": [str(head) for head in heads if hit[head] == 1],
            "dynamic": [str(head) for head in heads if hit[head] < 1 and found[head] > threshold],
            "note": "copying given the answer" if mode == "teacher" else "copying while the model writes",
        },
        prompts=prompt_digests(seen[i].trial.tokens for i in accepted),
    )


def copied(
    tokens: Int[np.ndarray, " pos"],
    span: tuple[int, int],
    argmax_positions: Int[np.ndarray, "*heads step"],
    written: Int[np.ndarray, " step"],
) -> Bool[np.ndarray, "*heads step"]:
    """Whether a step copied: ``argmax_positions`` is the position with the largest weight, and must lie in ``span`` of ``tokens`` and hold the token
    that was ``written``."""
    return (argmax_positions >= span[0]) & (argmax_positions < span[1]) & (tokens[argmax_positions] == written)


def share_copied(
    hits: Bool[np.ndarray, "*heads step"], argmax_positions: Int[np.ndarray, "*heads step"], span: tuple[int, int]
) -> np.ndarray:
    """How many positions of ``span`` were hit at least once, divided by its length, [*heads]."""
    return np.mean([(hits & (argmax_positions == at)).any(-1) for at in range(*span)], axis=0)


@dataclass(eq=False)
class _Answer:
    """One answered prompt: ``argmax_positions`` [n_layers n_heads step] and ``weight`` [n_layers n_heads step] on the span, by step."""

    trial: Trial
    argmax_positions: np.ndarray
    weight: np.ndarray
    tokens: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    response: str = ""
    recall: float = 0.0

    def reader(self, step: int, first: int) -> Callable[[AttentionRows], None]:
        """What reads rows, the first of which is in column ``first`` of the text and belongs to ``step``."""
        start, end = self.trial.span

        def read(rows: AttentionRows) -> None:
            steps = slice(step + rows.queries.start - first, step + rows.queries.stop - first)
            here = (rows.layer.index, rows.heads, steps)
            self.argmax_positions[here] = (rows.keys.start + rows.pattern[0].argmax(-1)).cpu().numpy()
            own = slice(max(start - rows.keys.start, 0), max(end - rows.keys.start, 0))
            self.weight[here] = rows.pattern[0, :, :, own].sum(-1).cpu().numpy()

        return read

    @property
    def hits(self) -> np.ndarray:
        return copied(np.array(self.tokens), self.trial.span, self.argmax_positions, np.array(self.written))

    @property
    def score(self) -> np.ndarray:
        return share_copied(self.hits, self.argmax_positions, self.trial.span)

    @property
    def score_code(self) -> np.ndarray:
        return self.hits.sum(-1) / len(self.trial.answer)

    @property
    def attention(self) -> np.ndarray:
        return self.weight.mean(-1).clip(0, 1)


def _beginning(model: Model, trials: Sequence[Trial], tokens: tuple[int, ...]) -> Callable[[int], Any] | None:
    """What gives a cache of the first tokens that a trial shares, if the model goes on from one exactly."""
    if not tokens:
        return None
    ends = min(trials, key=lambda t: (t.length, -t.shared)), max(trials, key=lambda t: (t.length, t.shared))
    proofs = [(_row(model, trial.tokens), trial.shared) for trial in ends]
    found = verified_shared_prefix(model, _row(model, tokens), proofs)
    return found.first if found else None


def _teacher(model: Model, trial: Trial, cache: Any) -> _Answer:
    """The rows of the given answer, in one pass."""
    n, tokens = len(trial.answer), [*trial.tokens, *trial.answer[:-1]]
    answer = _nothing_read(model, trial, n)
    logits = read_last_queries(model, _row(model, tokens), n, answer.reader(0, len(tokens) - n), cache)
    predicted = logits[0].argmax(-1).tolist()
    answer.tokens, answer.written = tokens, [*trial.answer]
    answer.response = _text(model, predicted)
    answer.recall = float(np.mean(np.array(predicted) == trial.answer))
    return answer


def _greedy(model: Model, trial: Trial, cache: Any, max_steps: int) -> _Answer:
    """The rows of what the model writes, a step at a time, up to a newline, the end of a text or of the context."""
    tokens, limit = list(trial.tokens), model.facts.max_length
    steps = max_steps if limit is None else min(max_steps, limit - len(tokens) + 1)
    answer = _nothing_read(model, trial, steps)
    end = getattr(model.tokenizer, "eos_token_id", None)
    for step in range(steps):
        logits = read_last_queries(model, _row(model, tokens), 1, answer.reader(step, len(tokens) - 1), cache)
        token = int(logits[0, -1].argmax())
        answer.written.append(token)
        tokens.append(token)
        if token == end or "\n" in _text(model, [token]):
            break
    n = len(answer.written)
    answer.argmax_positions, answer.weight, answer.tokens = answer.argmax_positions[..., :n], answer.weight[..., :n], tokens
    answer.response = _text(model, answer.written)
    left = list(answer.written)
    right = [left.remove(token) for token in trial.answer if token in left]
    answer.recall = len(right) / len(trial.answer)
    return answer


def _nothing_read(model: Model, trial: Trial, steps: int) -> _Answer:
    shape = (model.facts.n_layers, model.facts.n_heads, steps)
    return _Answer(trial, np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float32))


def _row(model: Model, tokens: Sequence[int]) -> torch.Tensor:
    return torch.tensor([tokens], device=model.device)


def _text(model: Model, tokens: Sequence[int]) -> str:
    return model.to_string(tokens) if model.tokenizer is not None else " ".join(map(str, tokens))


def _shuffled(answers: Sequence[_Answer], n_null_draws: int, seed: int) -> Float[np.ndarray, "n_null_draws n_layers n_heads"]:
    """Mean scores with wrong targets: the larger of those with a wrong word and with a wrong place for every token of the answers."""
    words, places = _wrong_words(answers, n_null_draws, seed), _wrong_places(answers, n_null_draws, seed)
    total = np.zeros((2, n_null_draws, *answers[0].argmax_positions.shape[:2]))
    for answer, wrong, starts in zip(answers, words, places, strict=True):
        trial, argmax_positions, written = answer.trial, answer.argmax_positions, np.array(answer.written)
        inside = (argmax_positions >= trial.context[0]) & (argmax_positions < trial.context[1]) & ~answer.hits
        word = np.where(inside, np.array(answer.tokens)[argmax_positions], -1)
        for token in set(trial.answer) & set(answer.written):
            steps, share = written == token, trial.answer.count(token) / len(trial.answer)
            total[0] += share * np.stack([(word[..., steps] == other).any(-1) for other in wrong[token]])
        ahead = np.array([trial.answer.index(token) if token in trial.answer else -1 for token in answer.written])
        place = np.where(inside & (ahead >= 0), argmax_positions - ahead, -1)
        total[1] += np.stack([(place == start).sum(-1).clip(max=len(trial.answer)) for start in starts]) / len(trial.answer)
    return total.max(0) / len(answers)


def _wrong_words(answers: Sequence[_Answer], n_null_draws: int, seed: int) -> list[dict[int, np.ndarray]]:
    """For each answer and each of its tokens a rival in every shuffle: the same in all prompts of one needle, each of which holds it."""
    rivals: dict[int, frozenset[int]] = {}
    right: dict[int, set[int]] = {}
    for trial in (answer.trial for answer in answers):
        rivals[trial.needle] = rivals.get(trial.needle, trial.rivals) & trial.rivals
        right.setdefault(trial.needle, set()).update(trial.answer)
    rng = np.random.default_rng([seed, 0])
    drawn = {
        needle: {token: rng.choice(sorted(rivals[needle]), n_null_draws) for token in sorted(tokens)}
        for needle, tokens in right.items()
    }
    return [drawn[answer.trial.needle] for answer in answers]


def _wrong_places(answers: Sequence[_Answer], n_null_draws: int, seed: int) -> list[Int[np.ndarray, " n_null_draws"]]:
    """For each answer a wrong place of its first token in every shuffle: for all prompts of one depth as far from the start of the
    context, or from its end."""
    rng = np.random.default_rng([seed, 1])
    room = {}
    for trial in (answer.trial for answer in answers):
        free = trial.context[1] - trial.context[0] - len(trial.answer)
        room[trial.depth] = min(room.get(trial.depth, free), free)
    drawn = {
        depth: (rng.integers(0, free + 1, n_null_draws), rng.random(n_null_draws) < 0.5) for depth, free in sorted(room.items())
    }
    found = []
    for trial in (answer.trial for answer in answers):
        far, from_start = drawn[trial.depth]
        found.append(np.where(from_start, trial.context[0] + far, trial.context[1] - len(trial.answer) - far))
    return found


def _tables(model: Model, seen: Sequence[_Answer], accepted: Sequence[int]) -> dict[str, pd.DataFrame]:
    """``trials``: one row a prompt; ``cells``: one row a length and depth; ``depths``: one row a head and depth, of accepted prompts."""
    import pandas as pd

    trials = pd.DataFrame(
        {
            "trial": i,
            "needle": answer.trial.needle,
            "length": answer.trial.length,
            "depth": answer.trial.depth,
            "accepted": i in set(accepted),
            "recall": answer.recall,
            "answer": _text(model, answer.trial.answer),
            "response": answer.response,
        }
        for i, answer in enumerate(seen)
    )
    cells = trials.groupby(["length", "depth"]).agg(
        n=("trial", "size"), accepted=("accepted", "sum"), recall=("recall", "mean")
    )
    by_depth = []
    for depth in sorted({seen[i].trial.depth for i in accepted}):
        scores = [seen[i].score for i in accepted if seen[i].trial.depth == depth]
        mean = np.mean(scores, axis=0)
        layer, head = (part.ravel().astype("int32") for part in np.indices(mean.shape))
        by_depth.append(pd.DataFrame({"layer": layer, "head": head, "depth": depth, "score": mean.ravel(), "n": len(scores)}))
    return {"trials": trials, "cells": cells.reset_index(), "depths": pd.concat(by_depth, ignore_index=True)}
