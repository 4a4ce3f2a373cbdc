"""Preplan and anchor tokens, where a response attends far back before it continues, and what it keeps attending to.

The tokens are those of ``interp.metrics.preplan_anchor_tokens``, here selected in responses that a model generates, or that are given, and
compared with chance. A response is the model's own text from the mark ``response`` of a prompt on, or everything after the
prompt. In the task ``plan_following`` it starts at a plan line, which the prompt contains and the steps need.

There is no threshold: the paper selects a fixed share of the tokens, so a model without the role has as many. The table of
statistics tells the two apart, with random heads as the null. The paper's own null, marks at random positions, is rejected by
untrained models as well: FAI falls along a text in all heads alike, so peaks of two groups coincide, and permuted marks may
be adjacent, which peaks never are (``coupling_statistics``).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import kurtosis

from interp.detectors.support.coupling_statistics import Curves, coupling
from interp.detectors.support.dataclass_as_keywords import keyword_options
from interp.detectors.support.detection import TokenDetection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.null_threshold import prompt_digests
from interp.detectors.support.response_prompts import RESPONSE, ResponseOptions, check_responses, response_texts, with_response
from interp.engine.attention.attention_observer import Observation
from interp.engine.forward.next_token_entropy import next_token_entropy
from interp.engine.sweep.sweep import Progress
from interp.heads import Head, TokenScores
from interp.metrics.attention import attention_metrics, observe_attention
from interp.metrics.preplan_anchor_tokens import (
    ROUNDING,
    PreplanAnchors,
    introductory_tokens,
    jaccard,
    peaks,
    preplan_and_anchors,
)
from interp.models.model import Model, record_of
from interp.records import RunRecord
from interp.tasks import Example, Task

SINK_ROWS, SINK_SHARE = 8, 5.0
N_RECEIVERS = 20
CHOICES = {"layers": ("all", "middle"), "exclude": ("none", "first", "detected")}


@dataclass(frozen=True)
class PreplanAnchorOptions(ResponseOptions):
    """How heads are grouped, tokens selected and statistics tested."""

    share: float = 0.3
    """Share of heads in the local group, which attends least far back, and in the global group, which attends farthest."""
    window: int = 10
    """Largest distance that counts in WAAD, in tokens."""
    horizon_min: int = 1
    horizon_max: int = 0
    """FAI averages the weight from tokens ``horizon_min`` to ``horizon_max`` later; 0 reaches to the end of the response."""
    q: float = 0.4
    """Share of the tokens selected as preplan tokens and as anchors."""
    layers: str = "all"
    """``all``, or ``middle``: five layers of the middle third (the paper's training)."""
    exclude: str = "none"
    """Ignore attention to the ``first`` token, or to ``detected`` sinks, when grouping heads."""
    prominence: float | None = None
    """Peaks by scipy with this prominence in standard deviations, instead of above both neighbours and the median."""
    k: int = 3
    """How many tokens before an anchor may introduce it."""
    waad_quantile: float = 0.5
    delta_quantile: float = 0.6
    """Dominated anchors have WAAD up to the first, and an introductory token with |delta| from the second quantile on."""
    shift: int = 0
    """1 assigns ``waad``, ``delta`` and ``entropy`` to the token that a row writes."""
    n_null_draws: int = 1000

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown. There are: {', '.join(known)}.")
        for name, least in (("horizon_min", 0), ("shift", 0), ("n_null_draws", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} is too small: use at least {least}.")


@dataclass(frozen=True, eq=False)
class _Measurement:
    """What is read from the responses: groups of heads, and numbers by token [batch pos]."""

    examples: list[Example]
    observation: Observation
    layers: list[int]
    groups: PreplanAnchors
    other_groups: PreplanAnchors
    """The groups with sinks treated the other way."""
    receivers: tuple[Head, ...]
    kurtosis: np.ndarray
    sinks: np.ndarray
    waad: np.ndarray
    delta: np.ndarray
    entropy: np.ndarray


@detector()
@keyword_options(PreplanAnchorOptions)
def preplan_anchor(
    model: Model,
    options: PreplanAnchorOptions,
    *,
    prompts: Task | Sequence[Sequence[int]] | None = None,
    response_start: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> TokenDetection:
    """The preplan and anchor tokens of responses (arXiv 2510.13554, without public code; its versions differ in the horizon).

    *Options* are the fields of ``PreplanAnchorOptions``, as keywords. *Texts:* ``prompts`` of a task, or the text ``prompt``,
    or the first ``n_prompts`` of the task called ``task``; the model generates up to ``max_new_tokens`` (greedily, or sampled
    at ``temperature``). Or given: the text ``response`` to ``prompt``, or token ids ``prompts`` with ``response_start``.

    *Scores:* ``waad`` of the local group, in tokens; ``delta``, WAAD of a token minus that of the next; next-token
    ``entropy`` in nats; ``fai`` of the global group (the paper's analysis reaches to the end of the response, its training 10
    to 50 tokens ahead, or 10 to 100 in version 2); ``sink``, the weight a token receives from all heads. *Masks:*
    ``preplan``, the share ``q`` with the largest |delta|; ``anchor``, that with the largest FAI; ``waad_peak`` and
    ``fai_peak``, which the paper does not define; ``dominated`` anchors and their ``introductory`` tokens, whose limits it
    does not give; ``sink``, tokens that receive more than 5 / length.

    *Tables:* ``statistics``: entropy at WAAD peaks; FAI peaks of receiver heads that are FAI peaks of the global group; WAAD
    peaks with a FAI peak at the same or the next token; each against ``n_null_draws`` random positions, circular shifts and
    random heads. Receivers are the heads whose FAI has the highest kurtosis over tokens (in arXiv 2506.19143 over sentences),
    up to 20, no more than the global group. ``groups``: each head's distance, its group with and without sinks, and whether
    it is a receiver. ``introductions``: dominated anchors with their introductory tokens.

    *False positives:* every model has as many selected tokens. Of untrained models 1 to 6 % have p <= 0.05 against random
    heads for any statistic. Against circular shifts these are 3 to 7 % for entropy, none for the FAI peak after a WAAD peak,
    and 78 to 94 % for receivers; against random positions 3 to 8 %, 11 %, and 80 to 96 %.

    Raises ValueError for an encoder, texts without a response or with one too short for the horizon, and invalid options.
    """
    model.facts.check_causal("preplan_anchor")
    name, texts = response_texts(model, options, prompts, response_start)
    advance = _counter(progress, 2 * len(texts) + 2)
    examples = [advance(with_response(model, text, options, row)) for row, text in enumerate(texts)]
    check_responses(examples, options.horizon_min)
    measurement = _measure(model, examples, options, advance)
    curves = _curves(measurement, options.shift)
    sizes = len(measurement.groups.local_heads), len(measurement.groups.global_heads)
    draws = {"n_null_draws": options.n_null_draws, "seed": options.seed}
    statistics = advance(coupling([c for _, c in curves], sizes, prominence=options.prominence, **draws))
    masks, introductions = _select_tokens(measurement, curves, options)
    given = {k: v for k, v in asdict(options).items() if k not in ("task", "prompt", "response", "seed")}
    arguments = {**given, "n_prompts": len(examples)}
    record = record_of(model, task=name, arguments=arguments, metric="preplan_anchor", seed=options.seed)
    groups = measurement.groups
    n_generated = sum(len(e.clean) - len(text.tokens) for e, text in zip(examples, texts, strict=True))
    return TokenDetection(
        "preplan_anchor",
        _scores(measurement, record),
        masks,
        {"local": groups.local_heads, "global": groups.global_heads, "receiver": measurement.receivers},
        {"statistics": statistics, "groups": _head_table(measurement), "introductions": introductions},
        {**_details(measurement, masks), "n_generated": n_generated},
        prompt_digests(e.clean for e in examples),
    )


def _measure(
    model: Model, examples: list[Example], options: PreplanAnchorOptions, advance: Callable[[Any], Any]
) -> _Measurement:
    observation = advance(_observe(model, examples, options))
    entropy = _padded([advance(next_token_entropy(model, e.clean, e.marks[RESPONSE][0]).numpy()) for e in examples], examples)
    sinks = observation.tokens("received_attention").values > SINK_SHARE / np.array([[len(e.clean)] for e in examples])
    n = model.facts.n_layers
    middle = sorted({int(layer) for layer in np.linspace(n // 3, min(2 * n // 3, n - 1), 5).round()})
    layers = middle if options.layers == "middle" else list(range(n))
    split = partial(preplan_and_anchors, share=options.share, q=options.q, layers=layers)
    groups, other_groups = split(observation), split(_without_sinks(model, observation, examples, sinks, options.exclude))
    if options.exclude != "none":
        groups, other_groups = other_groups, groups
    receivers, kurtosis = _receivers(observation, groups, layers)
    series = groups.waad.values, groups.delta.values, entropy
    waad, delta, entropy = (_shift_rows(values, options.shift, examples) for values in series)
    return _Measurement(examples, observation, layers, groups, other_groups, receivers, kurtosis, sinks, waad, delta, entropy)


def _observe(model: Model, examples: Sequence[Example], options: PreplanAnchorOptions) -> Observation:
    names = [
        "attention_distance",
        f"windowed_distance:window={options.window}",
        f"future_attention:horizon_min={options.horizon_min}:horizon_max={options.horizon_max}:positions={RESPONSE}",
        f"received_attention:min_rows={SINK_ROWS}",
    ]
    [first] = attention_metrics(["attention_distance:exclude=0"])
    return observe_attention(model, examples, [*names, replace(first, name="distance_without_first")])


def _without_sinks(
    model: Model, observation: Observation, examples: Sequence[Example], sinks: np.ndarray, exclude: str
) -> Observation:
    """The observation with distances that ignore sinks: the first token or, for ``detected``, those of each text."""
    distance = observation["distance_without_first"]
    if exclude == "detected":
        [metric] = attention_metrics(["attention_distance"])
        distance = torch.full_like(distance, torch.nan)
        for row, example in enumerate(examples):
            excluded = tuple(np.flatnonzero(sinks[row]).tolist())
            alone = observe_attention(model, [example], [metric.set(exclude=excluded)])["attention_distance"]
            distance[:, row : row + 1, :, : alone.shape[-1]] = alone
    return replace(observation, values={**observation.values, "attention_distance": distance})


def _receivers(observation: Observation, groups: PreplanAnchors, layers: Sequence[int]) -> tuple[tuple[Head, ...], np.ndarray]:
    """The heads whose FAI is most peaked over the tokens of a response, and their kurtosis, mean over texts."""
    response = ~np.isnan(groups.waad.values)
    of_text = np.full((*groups.distance.values.shape, len(response)), np.nan)
    for row, positions in enumerate(response):
        values = observation["future_attention"][:, row].double().cpu().numpy()[..., positions]
        known = ~np.isnan(values)
        varied = np.where(known, values, -np.inf).max(-1) - np.where(known, values, np.inf).min(-1) > ROUNDING
        of_text[varied, row] = kurtosis(values[varied], axis=-1, nan_policy="omit")
    n_known = (~np.isnan(of_text)).sum(-1)
    mean = np.nansum(of_text, -1) / np.where(n_known, n_known, np.nan)
    mean[[layer for layer in range(len(mean)) if layer not in layers]] = np.nan
    n = min(N_RECEIVERS, len(groups.global_heads), (~np.isnan(mean)).sum())
    order = np.argsort(-mean.ravel(), kind="stable")[:n]
    return tuple(Head(*divmod(int(i), mean.shape[1])) for i in order), mean


def _curves(measurement: _Measurement, shift: int) -> list[tuple[slice, Curves]]:
    """For each text the positions with every number, and the numbers there."""
    observation, waad, entropy = measurement.observation, measurement.waad, measurement.entropy
    fai = measurement.groups.fai.values
    receiver = observation.tokens("future_attention", measurement.receivers).values
    waad_of_heads, fai_of_heads = (
        observation[name][measurement.layers].transpose(1, 2).flatten(0, 1).double().cpu().numpy()
        for name in ("windowed_distance", "future_attention")
    )
    curves = []
    for row in range(len(waad)):
        known = np.flatnonzero(~np.isnan(waad[row] + fai[row] + entropy[row]))
        if len(known) < 3:
            raise ValueError(f"Text {row} has {len(known)} tokens with a FAI: its response is too short for the horizon.")
        at = slice(int(known[0]), int(known[-1]) + 1)
        per_head = waad_of_heads[:, row, at.start - shift : at.stop - shift], fai_of_heads[:, row, at]
        curves.append((at, Curves(waad[row, at], fai[row, at], receiver[row, at], entropy[row, at], *per_head)))
    return curves


def _padded(rows: Sequence[np.ndarray], examples: Sequence[Example]) -> np.ndarray:
    """Numbers of response tokens as [batch pos], NaN elsewhere."""
    table = np.full((len(examples), max(len(e.clean) for e in examples)), np.nan)
    for row, values, example in zip(table, rows, examples, strict=True):
        row[slice(*example.marks[RESPONSE])] = values
    return table


def _shift_rows(values: np.ndarray, shift: int, examples: Sequence[Example]) -> np.ndarray:
    """Numbers assigned to the token ``shift`` positions later, within the response."""
    parts = [row[slice(*e.marks[RESPONSE])] for row, e in zip(values, examples, strict=True)]
    return _padded([np.concatenate([np.full(shift, np.nan), part])[: len(part)] for part in parts], examples)


def _select_tokens(
    measurement: _Measurement, curves: Sequence[tuple[slice, Curves]], options: PreplanAnchorOptions
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """The masks [batch pos] by name, and the table of introductions."""
    is_anchor, shape = measurement.groups.is_anchor, measurement.waad.shape
    preplan = _shift_rows(np.where(measurement.groups.is_preplan, 1.0, 0.0), options.shift, measurement.examples) == 1
    introductions = _introductions(measurement, options)
    masks = {
        "preplan": preplan,
        "anchor": is_anchor,
        **{name: np.zeros(shape, dtype=bool) for name in ("waad_peak", "fai_peak", "dominated", "introductory")},
        "sink": measurement.sinks,
    }
    for row, (at, curve) in enumerate(curves):
        masks["waad_peak"][row, at] = peaks(curve.waad, options.prominence)
        masks["fai_peak"][row, at] = peaks(curve.fai, options.prominence)
    for name, column in (("dominated", "anchor"), ("introductory", "introductory")):
        masks[name][introductions["example"], introductions[column]] = True
    return masks, introductions


def _introductions(measurement: _Measurement, options: PreplanAnchorOptions) -> pd.DataFrame:
    """One row per dominated anchor: ``example anchor introductory waad delta`` (positions; delta of the introductory token)."""
    limits = options.k, options.waad_quantile, options.delta_quantile
    texts = zip(measurement.waad, measurement.delta, measurement.groups.is_anchor, strict=True)
    rows = [
        (row, at, before, waad[at], delta[before])
        for row, (waad, delta, is_anchor) in enumerate(texts)
        for at, before in introductory_tokens(waad, delta, is_anchor, *limits).items()
    ]
    kinds = {"example": "int32", "anchor": "int32", "introductory": "int32", "waad": "float64", "delta": "float64"}
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


def _scores(measurement: _Measurement, record: RunRecord) -> dict[str, TokenScores]:
    observation, groups = measurement.observation, measurement.groups
    token_mask = observation.prompts.token_mask.cpu().numpy()
    words = tuple(map(tuple, np.where(token_mask, np.array(observation.words, dtype=object), "").tolist()))
    reason = "not a token of the response, or too close to its end"

    def scores(name: str, values: np.ndarray, unit: str, bounds: tuple[float | None, float | None]) -> TokenScores:
        return TokenScores(name, values, words, unit, bounds, replace(record, metric=name), nan_reason=reason)

    return {
        "waad": scores("waad", measurement.waad, "tokens", groups.waad.bounds),
        "fai": scores("fai", groups.fai.values, "weight", groups.fai.bounds),
        "delta": scores("delta", measurement.delta, "tokens", (None, None)),
        "entropy": scores("entropy", measurement.entropy, "nats", (0.0, None)),
        "sink": scores("sink", observation.tokens("received_attention").values, "weight", (0.0, 1.0)),
    }


def _head_table(measurement: _Measurement) -> pd.DataFrame:
    """One row per head: ``layer head label group distance group_other distance_other receiver kurtosis``."""
    table = measurement.groups.distance.to_dataframe().drop(columns=["metric", "value", "unit"])
    heads = list(np.ndindex(measurement.kurtosis.shape))
    for split, ending in ((measurement.groups, ""), (measurement.other_groups, "_other")):
        group: dict[Any, str] = {**dict.fromkeys(split.local_heads, "local"), **dict.fromkeys(split.global_heads, "global")}
        table[f"group{ending}"] = [group.get(head, "") for head in heads]
        table[f"distance{ending}"] = split.distance.values.ravel()
    table["receiver"], table["kurtosis"] = [head in measurement.receivers for head in heads], measurement.kurtosis.ravel()
    return table


def _details(measurement: _Measurement, masks: dict[str, np.ndarray]) -> dict[str, Any]:
    """Counts; Jaccard overlap of the groups with those of single texts and with the other treatment of sinks; the share of punctuation."""
    groups, other, receivers = measurement.groups, measurement.other_groups, measurement.receivers
    response = ~np.isnan(groups.waad.values)
    is_punctuation = np.array([[not any(c.isalnum() for c in word) for word in text] for text in measurement.observation.words])
    selected = {"response": response, "preplan": masks["preplan"], "anchor": masks["anchor"]}
    return {
        "n_texts": len(measurement.examples),
        "n_response_tokens": int(response.sum()),
        "n_selected": {name: int(mask.sum()) for name, mask in masks.items()},
        "overlap_with_single_texts": dict(zip(("local", "global"), groups.overlap.mean(0).tolist(), strict=True)),
        "overlap_with_other_sinks": {
            "local": jaccard(groups.local_heads, other.local_heads),
            "global": jaccard(groups.global_heads, other.global_heads),
        },
        "receivers_in_global": len({*receivers} & {*groups.global_heads}) / max(len(receivers), 1),
        "punctuation": {name: float(is_punctuation[mask].mean()) if mask.any() else None for name, mask in selected.items()},
    }


def _counter(progress: Progress | None, total: int) -> Callable[[Any], Any]:
    """The identity function, which also counts its calls as progress."""
    calls = count(1)

    def advance(value: Any) -> Any:
        if progress is not None:
            progress(next(calls), total)
        return value

    return advance
