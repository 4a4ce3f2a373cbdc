"""Texts of equal length for measuring sinks: sentences, random tokens, or one token repeated."""

from typing import Any

import numpy as np
from jaxtyping import Int

from interp.models.model import Model
from interp.tasks import write_prompts
from interp.tasks.texts_as_task import as_task

TEXTS = ("task", "random", "repeated")
SHORTEST_SENTENCE = 4


def sink_texts(
    model: Model, text: str, n_prompts: int, length: int, bos: bool | None, seed: int
) -> Int[np.ndarray, "n_prompts length"]:
    """Token ids of ``n_prompts`` texts of exactly ``length`` tokens.

    ``task`` uses sentences of the ``needle`` task, ``random`` ordinary tokens of the vocabulary, ``repeated`` one such token
    repeated. ``bos`` puts BOS before the first two (by default where the model uses one), never before repeated tokens, whose
    first token must look like the others. Raises ValueError for an unknown kind, and without BOS or the task's words.
    """
    facts = model.facts
    start = [facts.bos_token_id] if (facts.prepend_bos if bos is None else bos) and text != "repeated" else []
    if start == [None]:
        raise ValueError(f"bos=True, but {facts.name} has no BOS token: omit bos.")
    rng = np.random.default_rng([seed, 3])
    if text == "task":
        texts = _sentences(model, n_prompts, length, seed)
    elif text == "random":
        texts = rng.choice(ordinary_tokens(model), (n_prompts, length)).tolist()
    elif text == "repeated":
        texts = [[token] * length for token in rng.choice(ordinary_tokens(model), n_prompts).tolist()]
    else:
        raise ValueError(f"text={text!r} is unknown. There are: {', '.join(TEXTS)}.")
    return np.array([[*start, *row][:length] for row in texts])


def ordinary_tokens(model: Model) -> Int[np.ndarray, " n"]:
    """Ids of all tokens but the special ones."""
    tokenizer, facts = model.tokenizer, model.facts
    special = {facts.bos_token_id} if tokenizer is None else set(tokenizer.all_special_ids)
    known = facts.d_vocab if tokenizer is None else min(facts.d_vocab, len(tokenizer))
    return np.array([token for token in range(known) if token not in special])


def truncate(model: Model, prompts: Any, length: int | None, longest: int) -> Int[np.ndarray, "n_prompts length"]:
    """The first ``length`` tokens of each prompt; by default the length of the shortest, at most ``longest``.

    Raises ValueError for a prompt shorter than ``length``.
    """
    texts = [example.clean for example in as_task(model, prompts)]
    length = min(longest, *map(len, texts)) if length is None else length
    short = [i for i, row in enumerate(texts) if len(row) < length]
    if short:
        raise ValueError(
            f"Prompt {short[0]} has {len(texts[short[0]])} tokens, fewer than length={length}: use longer prompts or a smaller length (the "
            f"score depends on it)."
        )
    return np.array([row[:length] for row in texts])


def knows_sentences(model: Model) -> bool:
    """Whether the tokenizer knows the words of the task's sentences."""
    try:
        return bool(_sentences(model, 1, 1, 0))
    except ValueError:
        return False


def _sentences(model: Model, n_prompts: int, length: int, seed: int) -> list[list[int]]:
    prompts = write_prompts("needle", model, n_prompts, seed, n_filler=length // SHORTEST_SENTENCE)
    return [model.to_tokens_without_special(prompt.clean) for prompt in prompts]
