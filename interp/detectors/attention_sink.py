"""Attention sinks, heads whose attention rests on the first token.

The score is Gu's importance of the first token, alpha_0 = mean over rows t of A[t, 0], at a stated length T; the paper counts a
head of a text as a sink above 0.3 at T = 64 (arXiv 2410.10781). A head with uniform attention has H_T / T, 0.074 at T = 64 but
0.34 at T = 8. A head without a match in a text also rests on the first token and is detected; with matches its score falls.

The null gives the first token another key (``random_first_key_null``). Shuffling keys within rows would not do: the first token is the
same in all texts and attends only to itself, so even in an untrained model its weight varies more than that of other tokens
(with BOS, 27 to 97 % of untrained models, by architecture, had a head above that 5 % threshold).

Also measured: sinks at later tokens by both rules of ACT (arXiv 2406.15765), massive activations (arXiv 2402.17762), and the
overlap of the two. A layer's heads are compared with the massive tokens of the residual stream that enters it.
"""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.special import expit, logit
from torch import Tensor

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.null_threshold import ROUNDING, null_threshold, prompt_digests
from interp.detectors.support.random_first_key_null import draw_keys, redrawn_key_importance
from interp.detectors.support.sink_texts import TEXTS, knows_sentences, sink_texts, truncate
from interp.engine.attention.attention_observer import Observation, observe
from interp.engine.forward.residual_observer import reading_residual
from interp.engine.sweep.sweep import Progress
from interp.heads import HeadScores
from interp.metrics.attention.column_sinks import RULES, sink_flags
from interp.metrics.attention.received_attention import received_attention
from interp.metrics.attention.sink_mass import sink_mass
from interp.metrics.attention.sink_rate import sink_rate
from interp.metrics.massive_activations import MassiveActivations
from interp.models.model import Model, record_of

LENGTH = 64
SCALES = (
    (np.asarray, np.asarray),
    (lambda weight: logit(weight.clip(ROUNDING, 1 - ROUNDING)), expit),
)
"""Scales on which a weight is compared with those of other keys, and their inverses: as it is, and as log-odds, on which weights near 0
and 1 are far apart. Those nearer than 1e-6 are the same."""


@detector(quick=True)
def attention_sink(
    model: Model,
    *,
    length: int | None = None,
    n_prompts: int = 32,
    text: str | None = None,
    bos: bool | None = None,
    prompts: Any = None,
    epsilon: float = 0.3,
    alpha: float = 5.0,
    absolute: float = 0.1,
    min_rows: int = 8,
    n_null_draws: int = 99,
    fwer: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads by alpha_0 = (1/T) sum_t A[t, 0], attention to the first token, 0 to 1; threshold ``epsilon`` in arXiv 2410.10781.

    ``n_prompts`` texts of T = ``length`` tokens (by default 64, or what the context or the shortest of ``prompts`` allows).
    ``text`` is ``task`` (sentences; the default where the tokenizer covers them), ``random`` or ``repeated``; ``bos`` prepends
    BOS, by default as the model does; ``prompts`` are texts of your own, truncated to T. ``extra_scores``: alpha_0 of
    ``random`` and ``repeated`` tokens (controls; a repeated token without BOS leaves a rotary model no distinct first token),
    ``sink_mass`` of the first four tokens in rows from 16 on (or the later half), and ``max_later_column``, the largest mean
    weight of a later column. Tables: ``later_sinks`` by both rules (``ratio``: above ``alpha`` / T; ``abs``: above
    ``absolute``; the last ``min_rows`` - 1 tokens are not judged), ``massive_activations``, and their ``overlap``.

    A head is detected above ``details["uniform"]``, the score of uniform attention, and against either kind of key, by its weight
    or by its log-odds, each at a quarter of the family-wise error rate ``fwer`` (in all 0.04 with 99 draws of either kind;
    fwer=0.05 needs 79). Raises ValueError for encoders, texts shorter than T, and models whose blocks are not known.
    """
    model.facts.check_causal("An attention sink at the first token")
    kind, tokens = _texts(model, text, n_prompts, length, bos, prompts, min_rows, seed)
    size, control_kinds = tokens.shape[1], [name for name in TEXTS[1:] if name != kind]
    keys = draw_keys(tokens.shape, model.facts.d_head, n_null_draws, np.random.default_rng([seed, 4]))
    importance = sink_rate.set(epsilon=epsilon)
    massive = MassiveActivations(torch.ones(tokens.shape, dtype=torch.bool, device=model.device))
    share = sink_mass.set(from_row=min(16, size // 2))
    with reading_residual(model, massive.read):
        metrics = [importance, share, received_attention.set(min_rows=min_rows), redrawn_key_importance(*keys)]
        observation = observe(model, tokens.tolist(), metrics)
    by_text = {kind: observation}
    for done, name in enumerate((kind, *control_kinds), 1):
        if name != kind:
            by_text[name] = observe(model, sink_texts(model, name, len(tokens), size, bos, seed).tolist(), [importance])
        if progress:
            progress(done, len(control_kinds) + 1)
    null_scores = observation["redrawn_key_importance"].double().mean(1).permute(2, 0, 1).cpu().numpy()
    alpha_0, limits, rates = _alpha(observation), [], []
    for draws in np.split(null_scores, 2):
        for transform, inverse in SCALES:
            limit, rate, _ = null_threshold(transform(alpha_0), transform(draws), fwer, n_tests=2 * len(SCALES))
            limits.append(inverse(limit))
            rates.append(rate)
    uniform = float((1 / np.arange(1, size + 1)).mean())
    arguments = {"text": kind, "length": size, "n_prompts": len(tokens), "bos": bos, "epsilon": epsilon}
    record = record_of(model, task="attention_sink", arguments=arguments, metric="alpha_0", seed=seed)

    def scores(name: str, values: np.ndarray) -> HeadScores:
        return HeadScores(name, values, "weight", (0.0, 1.0), record)

    activations, words = massive.to_dataframe(), observation.words
    activations.insert(3, "token", [words[i][pos] for i, pos in zip(activations["example"], activations["pos"], strict=True)])
    weight, limits_of_rules = observation["received_attention"], {"min_rows": min_rows, "alpha": alpha, "absolute": absolute}
    flags = partial(sink_flags, weight, observation.prompts, alpha=alpha, threshold=absolute, min_rows=min_rows)
    sinks = {rule: flags(rule=rule, keep_first=True) == 1 for rule in RULES}
    later = weight[..., 1 : size - min_rows + 1].double().amax(-1).mean(1).cpu().numpy()
    return Detection(
        "attention_sink",
        scores("alpha_0", alpha_0),
        scores("alpha_0 with redrawn keys", null_scores.mean(0)),
        np.maximum(np.min(limits, axis=0), uniform),
        sum(rates),
        epsilon,
        {
            **{name: scores(f"alpha_0 of {name} tokens", _alpha(by_text[name])) for name in control_kinds},
            "sink_mass": observation.heads("sink_mass"),
            "max_later_column": scores("largest later column", later),
        },
        {
            "later_sinks": _later_sinks(sinks, weight, words),
            "massive_activations": activations,
            "overlap": overlap(massive, flags(rule="ratio", keep_first=False)),
        },
        {
            **arguments,
            "first_tokens": sorted({text[0] for text in words})[:5],
            "uniform": uniform,
            "sink_0": {name: float(texts["sink_rate"][..., 1].mean()) for name, texts in by_text.items()},
            "onset_layer": massive.onset,
            **limits_of_rules,
            "n_null_draws": n_null_draws,
        },
        prompt_digests(tokens.tolist()),
    )


def overlap(massive: MassiveActivations, flags: Float[Tensor, "n_layers batch head pos"]) -> pd.DataFrame:
    """Agreement of sinks (``flags``, NaN where not judged) with massive tokens, one row per layer.

    Of the judged ``tokens``, ``massive`` counts those with massive activations in the entering residual stream, ``sinks``
    those that are a sink of some head, ``both`` their intersection; ``correlation`` is phi between the two (NaN if one does
    not vary); ``median`` and ``largest`` are |x| of the residual stream that leaves the layer.
    """
    rows = []
    for layer, own in enumerate(flags):
        judged = own.isfinite().all(1)
        large, sink = massive.tokens(layer - 1)[judged].cpu().numpy(), (own == 1).any(1)[judged].cpu().numpy()
        varies = 0 < large.mean() < 1 and 0 < sink.mean() < 1
        phi = float(np.corrcoef(large, sink)[0, 1]) if varies else np.nan
        counts = (len(large), int(large.sum()), int(sink.sum()), int((large & sink).sum()))
        rows.append((layer, *counts, phi, *massive.sizes[layer]))
    return pd.DataFrame(rows, columns=["layer", "tokens", "massive", "sinks", "both", "correlation", "median", "largest"])


def _texts(
    model: Model, text: str | None, n_prompts: int, length: int | None, bos: bool | None, prompts: Any, min_rows: int, seed: int
) -> tuple[str, Int[np.ndarray, "n_prompts length"]]:
    """The kind of text and its token ids."""
    if prompts is not None:
        kind, tokens = "given", truncate(model, prompts, length, LENGTH)
    else:
        facts = model.facts
        longest = facts.max_length or LENGTH
        length = min(LENGTH, longest) if length is None else length
        if length > longest:
            raise ValueError(f"length={length} exceeds the context of {facts.name}, {longest} tokens: use a smaller length.")
        if n_prompts < 1:
            raise ValueError(f"n_prompts={n_prompts} is too few: use at least 1.")
        kind = text or ("task" if knows_sentences(model) else "random")
        tokens = sink_texts(model, kind, n_prompts, length, bos, seed)
    if tokens.shape[1] < min_rows + 2:
        raise ValueError(
            f"Texts of {tokens.shape[1]} tokens are too short for min_rows={min_rows}: use at least {min_rows + 2} tokens."
        )
    return kind, tokens


def _alpha(observation: Observation) -> Float[np.ndarray, "n_layers n_heads"]:
    return observation["sink_rate"][..., 0].double().mean(1).cpu().numpy()


def _later_sinks(sinks: dict[str, Tensor], weight: Tensor, words: tuple[tuple[str, ...], ...]) -> pd.DataFrame:
    rows = [
        (layer, head, example, pos, words[example][pos], float(weight[layer, example, head, pos]), rule)
        for rule, flags in sinks.items()
        for layer, example, head, pos in flags.nonzero().tolist()
    ]
    return pd.DataFrame(rows, columns=["layer", "head", "example", "pos", "token", "weight", "rule"])
