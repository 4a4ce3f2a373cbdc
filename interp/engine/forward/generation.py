"""Generated continuations."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.attention.intervening_observer import InterveningObserver
from interp.engine.forward.run import run
from interp.errors import FastPathUnavailable
from interp.interventions import Intervention
from interp.models.model import Model
from interp.tasks.task import END
from interp.tasks.token_batch import TokenBatch


class GeneratedTokens(NamedTuple):
    """The ids that follow a prompt, and the ``logits`` [d_vocab] of the first of them."""

    tokens: tuple[int, ...]
    logits: Float[Tensor, " d_vocab"]


def generate(
    model: Model,
    prompt: Sequence[int],
    n_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    stop: bool = False,
    intervene: Sequence[Intervention] = (),
) -> GeneratedTokens:
    """``n_tokens`` tokens that follow the prompt, fewer where the context ends or, with ``stop``, before the end-of-text token.

    Greedy, or sampled with ``seed`` at a ``temperature`` above 0. Tokens are generated from a cache, under interventions as well, except
    those whose positions are counted from the end of the text: there every token takes a whole pass. Raises ValueError for an
    encoder, an empty prompt, one that fills the context, ``n_tokens`` below 1 and a negative temperature.
    """
    room = _room(model, prompt, n_tokens)
    if temperature < 0:
        raise ValueError(f"temperature={temperature} is negative: give 0 for the most probable tokens, more for random ones.")
    ends = _ends(model) if stop else ()
    rng, tokens, first, cache = torch.Generator().manual_seed(seed), list(prompt), None, None
    observer = _observer(model, len(prompt) + room, intervene) if intervene and model.hf is not None else None
    for _ in range(room):
        if model.hf is None or (intervene and observer is None):
            logits = run(model, tokens, intervene=intervene).logits[0, -1].double()
        else:
            with model.lock, torch.inference_mode(), observer.reading() if observer else nullcontext():
                ids = torch.tensor([tokens if cache is None else tokens[-1:]], device=model.device)
                out = model.hf(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits, cache = out.logits[0, -1].double(), out.past_key_values
        first = logits if first is None else first
        shares = (logits.cpu() / temperature).softmax(-1) if temperature else None
        token = int(logits.argmax() if shares is None else torch.multinomial(shares, 1, generator=rng))
        if token in ends:
            break
        tokens.append(token)
    assert first is not None
    return GeneratedTokens(tuple(tokens[len(prompt) :]), first)


def _observer(model: Model, length: int, intervene: Sequence[Intervention]) -> InterveningObserver | None:
    """What applies the interventions to one text of ``length`` tokens, step by step; None where that is not what whole passes do."""
    if any(
        i.reads_to_end or i.positions == END or (isinstance(i.positions, tuple) and min(i.positions) < 0) for i in intervene
    ):
        return None
    whole = torch.zeros(1, length, dtype=torch.long, device=model.device)
    try:
        return InterveningObserver(model, TokenBatch(whole, torch.ones_like(whole, dtype=torch.bool)), intervene)
    except FastPathUnavailable:
        return None


def _ends(model: Model) -> Sequence[int]:
    """Ids of the end-of-text tokens."""
    found = getattr(getattr(model.hf, "generation_config", None), "eos_token_id", None)
    found = getattr(model.tokenizer, "eos_token_id", None) if found is None else found
    return () if found is None else [found] if isinstance(found, int) else found


def _room(model: Model, prompt: Sequence[int], n_tokens: int) -> int:
    facts = model.facts
    facts.check_causal("A continuation")
    if not len(prompt):
        raise ValueError("The prompt is empty: give at least one token.")
    if n_tokens < 1:
        raise ValueError(f"n_tokens={n_tokens} is too few: give at least 1.")
    length, limit = len(prompt), facts.max_length
    room = n_tokens if limit is None else min(n_tokens, limit - length)
    if room < 1:
        raise ValueError(
            f"The prompt has {length} tokens, and {facts.name} reads at most {limit}, the next one included: shorten it."
        )
    return room
