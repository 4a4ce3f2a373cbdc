"""Which tokens of a needle's answer each head copies, with the answer given (teacher forcing) or generated greedily.

A step copies when the key with the largest weight lies in the answer's span of the prompt and holds the token that is written.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from interp.detectors.support.needle_prompts import Trial
from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.attention.last_query_rows_and_prefix_cache import read_last_queries, verified_shared_prefix
from interp.engine.sweep.sweep import UnitLedger
from interp.models.model import Model
from interp.records import digest


def is_copy(
    tokens: Int[np.ndarray, " pos"],
    span: tuple[int, int],
    argmax_positions: Int[np.ndarray, "*heads step"],
    written: Int[np.ndarray, " step"],
) -> Bool[np.ndarray, "*heads step"]:
    """Whether each step copies: its ``argmax_positions`` entry lies in ``span`` of ``tokens`` and holds the token that was ``written``."""
    return (argmax_positions >= span[0]) & (argmax_positions < span[1]) & (tokens[argmax_positions] == written)


def share_copied(
    hits: Bool[np.ndarray, "*heads step"], argmax_positions: Int[np.ndarray, "*heads step"], span: tuple[int, int]
) -> np.ndarray:
    """Share of the positions of ``span`` that are hit at least once, [*heads]."""
    return np.mean([(hits & (argmax_positions == at)).any(-1) for at in range(*span)], axis=0)


@dataclass(eq=False)
class CopiedAnswer:
    """Attention while one answer is written: by head and step, the position of the largest weight and the weight on the answer's span."""

    trial: Trial
    argmax_positions: np.ndarray
    weight: np.ndarray
    tokens: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    response: str = ""
    recall: float = 0.0

    def reader(self, step: int, first: int) -> Callable[[AttentionRows], None]:
        """A reader of attention rows, where the row of query ``first`` belongs to ``step``."""
        start, end = self.trial.span

        def read(rows: AttentionRows) -> None:
            steps = slice(step + rows.queries.start - first, step + rows.queries.stop - first)
            here = (rows.layer.index, rows.heads, steps)
            self.argmax_positions[here] = (rows.keys.start + rows.pattern[0].argmax(-1)).cpu().numpy()
            own = slice(max(start - rows.keys.start, 0), max(end - rows.keys.start, 0))
            self.weight[here] = rows.pattern[0, :, :, own].sum(-1).cpu().numpy()

        return read

    def to_array(self) -> Float[np.ndarray, " n"]:
        """All values of the answer in one array: the sizes, the numbers, the characters of the response."""
        text = [ord(character) for character in self.response]
        sizes = [*self.weight.shape, len(self.tokens), len(self.written), self.recall]
        parts = (sizes, self.argmax_positions.ravel(), self.weight.ravel(), self.tokens, self.written, text)
        return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])

    @classmethod
    def from_array(cls, trial: Trial, values: Float[np.ndarray, " n"]) -> "CopiedAnswer":
        """The answer to a trial that ``to_array`` wrote."""
        *shape, n_tokens, n_written = values[:5].astype(int).tolist()
        ends = np.cumsum([math.prod(shape), math.prod(shape), n_tokens, n_written])
        positions, weight, tokens, written, text = np.split(values[6:], ends)
        argmax_positions, weights = positions.astype(np.int32).reshape(shape), weight.astype(np.float32).reshape(shape)
        response, recall = "".join(map(chr, text.astype(int))), float(values[5])
        return cls(
            trial, argmax_positions, weights, tokens.astype(int).tolist(), written.astype(int).tolist(), response, recall
        )

    @property
    def hits(self) -> np.ndarray:
        return is_copy(np.array(self.tokens), self.trial.span, self.argmax_positions, np.array(self.written))

    @property
    def score(self) -> np.ndarray:
        return share_copied(self.hits, self.argmax_positions, self.trial.span)

    @property
    def score_code(self) -> np.ndarray:
        return self.hits.sum(-1) / len(self.trial.answer)

    @property
    def attention(self) -> np.ndarray:
        return self.weight.mean(-1).clip(0, 1)


def stored_answer(trial: Trial, write: Callable[[], CopiedAnswer], how: list[Any], ledger: UnitLedger | None) -> CopiedAnswer:
    """The answer that ``write`` gives to a trial, from the ledger where it is there; ``how`` (JSON values) tells it from others."""
    if ledger is None:
        return write()
    key = digest(["retrieval", *how, list(trial.tokens), list(trial.answer), list(trial.span)])
    values = ledger.get(key)
    if values is not None:
        return CopiedAnswer.from_array(trial, values)
    answer = write()
    ledger.put(key, answer.to_array())
    return answer


def shared_prefix_cache(model: Model, trials: Sequence[Trial], prefix: tuple[int, ...]) -> Callable[[int], Any] | None:
    """A function from a number of tokens to their key/value cache, if the model continues exactly from one; None otherwise."""
    if not prefix:
        return None
    ends = (min(trials, key=lambda t: (t.length, -t.n_shared_prefix)), max(trials, key=lambda t: (t.length, t.n_shared_prefix)))
    proofs = [(_batch(model, trial.tokens), trial.n_shared_prefix) for trial in ends]
    shared = verified_shared_prefix(model, _batch(model, prefix), proofs)
    return shared.first if shared else None


def teacher_forced_answer(model: Model, trial: Trial, cache: Any) -> CopiedAnswer:
    """The given answer, read in one pass."""
    n, tokens = len(trial.answer), [*trial.tokens, *trial.answer[:-1]]
    answer = _empty_answer(model, trial, n)
    logits = read_last_queries(model, _batch(model, tokens), n, answer.reader(0, len(tokens) - n), cache)
    predicted = logits[0].argmax(-1).tolist()
    answer.tokens, answer.written = tokens, [*trial.answer]
    answer.response = text_of(model, predicted)
    answer.recall = float(np.mean(np.array(predicted) == trial.answer))
    return answer


def greedy_answer(model: Model, trial: Trial, cache: Any, max_new_tokens: int) -> CopiedAnswer:
    """The generated answer, up to ``max_new_tokens``, a newline, the end of text or of the context."""
    tokens, limit = list(trial.tokens), model.facts.max_length
    steps = max_new_tokens if limit is None else min(max_new_tokens, limit - len(tokens) + 1)
    answer = _empty_answer(model, trial, steps)
    end = getattr(model.tokenizer, "eos_token_id", None)
    for step in range(steps):
        logits = read_last_queries(model, _batch(model, tokens), 1, answer.reader(step, len(tokens) - 1), cache)
        token = int(logits[0, -1].argmax())
        answer.written.append(token)
        tokens.append(token)
        if token == end or "\n" in text_of(model, [token]):
            break
    n = len(answer.written)
    answer.argmax_positions, answer.weight, answer.tokens = answer.argmax_positions[..., :n], answer.weight[..., :n], tokens
    answer.response = text_of(model, answer.written)
    answer.recall = (Counter(trial.answer) & Counter(answer.written)).total() / len(trial.answer)
    return answer


def _empty_answer(model: Model, trial: Trial, steps: int) -> CopiedAnswer:
    shape = (model.facts.n_layers, model.facts.n_heads, steps)
    return CopiedAnswer(trial, np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float32))


def _batch(model: Model, tokens: Sequence[int]) -> torch.Tensor:
    return torch.tensor([tokens], device=model.device)


def text_of(model: Model, tokens: Sequence[int]) -> str:
    return model.to_string(tokens) if model.tokenizer is not None else " ".join(map(str, tokens))
