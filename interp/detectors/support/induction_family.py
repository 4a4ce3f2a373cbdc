"""How heads look at three targets while random words are repeated: what detectors of the induction family have in common.

Prompts are ``r1 ... rn r1 ... rn``, all r different, behind BOS where the model is used with one. There the rows of the second copy, and
no others, see what followed their token before (``induction_score``) and where it stood (``duplicate_token_score``); the mean over
the whole n-1 diagonal, also in use, counts rows that are no induction. Chance is what strangers score (``interp.engine.attention.query_null``) and
not wrong keys of the same head: position and token alone make an untrained head look more at one of these targets than at other keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np

from interp.detectors.support.detection import Detection
from interp.detectors.support.null_threshold import null_threshold, prompt_digests
from interp.engine.attention.query_null import observe_query_null
from interp.engine.forward.run import record_of
from interp.engine.sweep.sweep import Progress
from interp.metrics.attention import attention_metrics
from interp.models.model import Model

METRIC_OF_ROLE = {
    "induction": "induction_score",
    "previous_token": "prev_token_score",
    "duplicate_token": "duplicate_token_score",
}
SHORTEST, LONGEST = 4, 50
LITERATURE_THRESHOLD = 0.4
"""Above this a head is often called by these names; a habit of demonstrations, not the constant of a paper."""


def induction_family(
    model: Model,
    *,
    n_prompts: int = 4,
    period: int | None = None,
    n_null_draws: int = 19,
    rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Detection]:
    """The detections of ``induction``, ``previous_token`` and ``duplicate_token`` from one pass; options and errors as there."""
    return detections(model, list(METRIC_OF_ROLE), n_prompts, period, n_null_draws, rate, seed, progress)


def detections(
    model: Model,
    roles: Sequence[str],
    n_prompts: int,
    period: int | None,
    n_null_draws: int,
    rate: float,
    seed: int,
    progress: Progress | None,
) -> dict[str, Detection]:
    """The heads of each role, from one pass over ``repeats``."""
    prompts = repeats(model, n_prompts, period, seed)
    names = [METRIC_OF_ROLE[role] for role in roles]
    seen, null_scores = observe_query_null(model, prompts, attention_metrics(names), n_null_draws, seed=seed, progress=progress)
    sizes = {"n_prompts": n_prompts, "period": len(prompts[0]) // 2, "n_null_draws": n_null_draws}
    found = {}
    for role, name in zip(roles, names, strict=True):
        record = record_of(model, task="repeats", arguments=sizes, metric=name, seed=seed)
        scores = replace(seen.heads(name), record=record)
        if np.isnan(scores.values).all():
            raise ValueError(
                f"No row of {model.facts.name} sees as far back as the {role} score asks: all its windows are shorter than "
                f"period={sizes['period']}. Take a smaller one."
            )
        threshold, true_rate, chance = null_threshold(null_scores[name].numpy(), rate)
        control = replace(scores, name=f"{name}_of_strangers", values=chance)
        found[role] = Detection(
            role, scores, control, threshold, true_rate, LITERATURE_THRESHOLD, details=sizes, prompts=prompt_digests(prompts)
        )
    return found


def repeats(model: Model, n_prompts: int, period: int | None, seed: int) -> list[list[int]]:
    """``n_prompts`` prompts of random ordinary tokens that are repeated after ``period``: by default 50, or as many as fit.

    Raises ValueError for an encoder, and where the period, or one of at least 4, does not fit.
    """
    facts = model.facts
    facts.check_causal("Repeating random words")
    if n_prompts < 1:
        raise ValueError(f"n_prompts={n_prompts} leaves nothing to read: take at least 1.")
    words, bos = _ordinary_tokens(model), [facts.bos_token_id] if facts.prepend_bos and facts.bos_token_id is not None else []
    most = len(words) if facts.max_length is None else min(len(words), (facts.max_length - len(bos)) // 2)
    period = min(LONGEST, most) if period is None else period
    if not SHORTEST <= period <= most:
        raise ValueError(
            f"{facts.name} cannot repeat {period} random words: at least {SHORTEST} are needed, and {most} fit, with {len(words)} ordinary "
            f"tokens and a context of {facts.max_length or 'any length'}."
        )
    rng = Random(f"repeats/{seed}")
    return [[*bos, *words, *words] for words in (rng.sample(words, period) for _ in range(n_prompts))]


def _ordinary_tokens(model: Model) -> list[int]:
    """Ids of the tokens that stand for text."""
    facts, tokenizer = model.facts, model.tokenizer
    if tokenizer is None:
        return [token for token in range(facts.d_vocab) if token != facts.bos_token_id]
    special = {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}
    return [token for token in range(min(facts.d_vocab, len(tokenizer))) if token not in special]
