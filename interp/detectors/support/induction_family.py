"""Scores of induction, previous-token and duplicate-token heads on repeated random tokens.

Prompts are ``r1 ... rn r1 ... rn`` with all r different, after BOS where the model uses one. Only rows of the second copy have
an earlier occurrence of their token to attend to (``duplicate_token_score``) or after (``induction_score``); the mean over the
whole (n-1)-th diagonal, also in use, includes rows where no induction is possible. The null keeps a head's keys and replaces
its queries with another group's, computed from a permuted, sign-flipped residual stream (``permuted_query_null``). Other keys of
the same head are no null: position and token identity alone make an untrained head prefer some of these targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from interp.detectors.support.dataclass_as_keywords import keyword_options
from interp.detectors.support.detection import Detection
from interp.detectors.support.null_threshold import null_threshold, prompt_digests
from interp.engine.attention.permuted_query_null import observe_query_null
from interp.engine.sweep.sweep import Progress
from interp.metrics.attention import attention_metrics
from interp.models.model import Model, record_of

METRIC_OF_ROLE = {
    "induction": "induction_score",
    "previous_token": "prev_token_score",
    "duplicate_token": "duplicate_token_score",
}
SHORTEST, LONGEST = 4, 50
LITERATURE_THRESHOLD = 0.4
"""A convention of demonstrations, not the constant of a paper."""


@dataclass(frozen=True)
class RepeatedTokenOptions:
    """Prompts and null of the detectors that read repeated random tokens."""

    n_prompts: int = 4
    period: int | None = None
    """n, by default 50 or the most that fit."""
    n_null_draws: int = 19
    """Draws of other queries, from which the threshold comes; ``fwer=0.05`` needs 19."""
    fwer: float = 0.05
    """The family-wise error rate that the threshold holds."""
    seed: int = 0


@keyword_options(RepeatedTokenOptions)
def induction_family(model: Model, options: RepeatedTokenOptions, *, progress: Progress | None = None) -> dict[str, Detection]:
    """The detections of ``induction``, ``previous_token`` and ``duplicate_token`` from one pass; options and errors as there."""
    return detect_roles(model, list(METRIC_OF_ROLE), options, progress)


def detect_roles(
    model: Model, roles: Sequence[str], options: RepeatedTokenOptions, progress: Progress | None
) -> dict[str, Detection]:
    """The detection of each role, from one pass over ``repeated_token_prompts``."""
    prompts = repeated_token_prompts(model, options.n_prompts, options.period, options.seed)
    names = [METRIC_OF_ROLE[role] for role in roles]
    observation, null_scores = observe_query_null(
        model, prompts, attention_metrics(names), options.n_null_draws, seed=options.seed, progress=progress
    )
    sizes = {"n_prompts": options.n_prompts, "period": len(prompts[0]) // 2, "n_null_draws": options.n_null_draws}
    detections = {}
    for role, name in zip(roles, names, strict=True):
        record = record_of(model, task="repeats", arguments=sizes, metric=name, seed=options.seed)
        scores = replace(observation.heads(name), record=record)
        if np.isnan(scores.values).all():
            raise ValueError(
                f"The {role} score is undefined for {model.facts.name}: every attention window is shorter than period={sizes['period']}. "
                f"Use a smaller period."
            )
        threshold, actual_fwer, null_mean = null_threshold(scores.values, null_scores[name].numpy(), options.fwer)
        control = replace(scores, name=f"{name} under the null", values=null_mean)
        detections[role] = Detection(
            role, scores, control, threshold, actual_fwer, LITERATURE_THRESHOLD, details=sizes, prompts=prompt_digests(prompts)
        )
    return detections


def repeated_token_prompts(model: Model, n_prompts: int, period: int | None, seed: int) -> list[list[int]]:
    """``n_prompts`` prompts of ``period`` random ordinary tokens, each repeated once; by default 50, or the most that fit.

    Raises ValueError for an encoder, and for a period below 4 or beyond the context or vocabulary.
    """
    facts = model.facts
    facts.check_causal("Repeating random tokens")
    if n_prompts < 1:
        raise ValueError(f"n_prompts={n_prompts} is too few: use at least 1.")
    words, bos = _ordinary_tokens(model), [facts.bos_token_id] if facts.prepend_bos and facts.bos_token_id is not None else []
    most = len(words) if facts.max_length is None else min(len(words), (facts.max_length - len(bos)) // 2)
    period = min(LONGEST, most) if period is None else period
    if not SHORTEST <= period <= most:
        raise ValueError(
            f"{facts.name} cannot repeat {period} random tokens: at least {SHORTEST} are needed, and {most} fit, with {len(words)} "
            f"ordinary tokens and a context of {facts.max_length or 'any length'}. Use another period."
        )
    rng = Random(f"repeats/{seed}")
    return [[*bos, *words, *words] for words in (rng.sample(words, period) for _ in range(n_prompts))]


def _ordinary_tokens(model: Model) -> list[int]:
    facts, tokenizer = model.facts, model.tokenizer
    if tokenizer is None:
        return [token for token in range(facts.d_vocab) if token != facts.bos_token_id]
    special = {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}
    return [token for token in range(min(facts.d_vocab, len(tokenizer))) if token not in special]
