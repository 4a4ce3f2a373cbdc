"""Texts of one length on which sinks are measured: sentences, random tokens, or one token over and over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from interp.models.model import Model

TEXTS = ("task", "random", "repeated")
SHORTEST_SENTENCE = 4


def sink_texts(
    model: Model, text: str, n_prompts: int, length: int, bos: bool | None, seed: int
) -> Int[np.ndarray, "n_prompts length"]:
    """Token ids of ``n_prompts`` texts of exactly ``length`` tokens.

    ``task`` are the sentences of the ``needle`` task, ``random`` are tokens of the vocabulary, special ones left out, and ``repeated`` is
    one such token again and again. With ``bos`` the first two begin with BOS (by default where the model's texts do); repeated
    tokens never do, or their first token would be told apart. Raises ValueError for an unknown kind, a BOS that does not exist, and a model
    whose tokenizer does not know the words of the task.
    """
    facts = model.facts
    start = [facts.bos_token_id] if (facts.prepend_bos if bos is None else bos) and text != "repeated" else []
    if start == [None]:
        raise ValueError(f"bos=True, and {facts.name} has no BOS token: leave bos out.")
    rng = np.random.default_rng([seed, 3])
    if text == "task":
        rows = _sentences(model, n_prompts, length, seed)
    elif text == "random":
        rows = rng.choice(ordinary_tokens(model), (n_prompts, length)).tolist()
    elif text == "repeated":
        rows = [[token] * length for token in rng.choice(ordinary_tokens(model), n_prompts).tolist()]
    else:
        raise ValueError(f"text={text!r} is no kind of text. There are: {', '.join(TEXTS)}.")
    return np.array([[*start, *row][:length] for row in rows])


def ordinary_tokens(model: Model) -> Int[np.ndarray, " n"]:
    """Token ids that are no special tokens."""
    tokenizer, facts = model.tokenizer, model.facts
    special = {facts.bos_token_id} if tokenizer is None else set(tokenizer.all_special_ids)
    known = facts.d_vocab if tokenizer is None else min(facts.d_vocab, len(tokenizer))
    return np.array([token for token in range(known) if token not in special])


def cut(model: Model, prompts: Any, length: int | None, longest: int) -> Int[np.ndarray, "n_prompts length"]:
    """The first ``length`` tokens of each prompt; by default as many as the shortest has, at most ``longest``.

    Raises ValueError when one is shorter than ``length``.
    """
    from interp.engine.attention.as_task import as_task

    rows = [example.clean for example in as_task(model, prompts)]
    length = min(longest, *map(len, rows)) if length is None else length
    short = [i for i, row in enumerate(rows) if len(row) < length]
    if short:
        raise ValueError(
            f"Prompt {short[0]} has {len(rows[short[0]])} tokens, and sinks are to be measured at length={length}, on which the number "
            f"depends: give longer prompts or a smaller length."
        )
    return np.array([row[:length] for row in rows])


def knows_sentences(model: Model) -> bool:
    """Whether the tokenizer knows the words of the task's sentences."""
    try:
        return bool(_sentences(model, 1, 1, 0))
    except ValueError:
        return False


def _sentences(model: Model, n_prompts: int, length: int, seed: int) -> list[list[int]]:
    from interp.tasks import write_prompts

    prompts = write_prompts("needle", model, n_prompts, seed, n_filler=length // SHORTEST_SENTENCE)
    return [model.to_tokens_without_special(prompt.clean) for prompt in prompts]
