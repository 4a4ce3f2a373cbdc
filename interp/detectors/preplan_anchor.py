"""Preplan and anchor tokens: where a response looks back before it goes on, and what it keeps looking back to.

The tokens are those of ``interp.metrics.waad_fai``; here they are found in responses that a model writes, or that are given, and set
beside chance. A response is the model's own text from the mark ``response`` of a prompt on, or all that follows the prompt. With
the task ``plan`` it begins at a plan line that the prompt gives and the steps need.

There is no threshold: the paper takes a share of the tokens, so that a model without the role has as many. What tells it from one
is the table of statistics, read beside random heads. The paper's own comparison, marks at random places, is passed by untrained models
as well: FAI falls along a text in all heads alike, so that peaks of two groups meet, and marks that are moved one by one may become
neighbours, which peaks never are (``_coupling.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.detectors.support.coupling_statistics import Curves, coupling
from interp.detectors.support.detection import TokenDetection
from interp.detectors.support.detector import detector
from interp.detectors.support.null_threshold import prompt_digests
from interp.detectors.support.responses import RESPONSE, ResponseOptions, check_responses, texts_of, with_response
from interp.engine.attention.attention_observer import Observation
from interp.engine.forward.generation import next_token_entropy
from interp.engine.forward.run import record_of
from interp.engine.sweep.sweep import Progress
from interp.heads import Head, TokenScores
from interp.metrics.attention import attention_metrics, observe_attention
from interp.metrics.waad_fai import ROUNDING, PreplanAnchors, introductory_tokens, peaks, preplan_and_anchors
from interp.models.model import Model
from interp.records import RunRecord
from interp.tasks import Example, Task

SINK_ROWS, SINK_SHARE = 8, 5.0
N_RECEIVERS = 20
EXCLUDE = ("none", "first", "found")
LAYERS = ("all", "middle")


@detector()
def preplan_anchor(
    model: Model,
    *,
    prompts: Task | Sequence[Sequence[int]] | None = None,
    response_start: Sequence[int] | None = None,
    task: str = "plan",
    n_prompts: int = 16,
    prompt: str | None = None,
    response: str | None = None,
    n_tokens: int = 64,
    temperature: float = 0.0,
    share: float = 0.3,
    window: int = 10,
    low: int = 1,
    high: int = 0,
    q: float = 0.4,
    layers: str = "all",
    exclude: str = "none",
    prominence: float | None = None,
    k: int = 3,
    waad_quantile: float = 0.5,
    delta_quantile: float = 0.6,
    shift: int = 0,
    n_null_draws: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> TokenDetection:
    """The preplan and anchor tokens of responses (arXiv 2510.13554, which has no public code; its two versions differ in the horizon).

    *Texts.* ``prompts`` of a task, or the text ``prompt``, or the first ``n_prompts`` of the task called ``task``; the model writes up to
    ``n_tokens`` more (the most probable ones, or drawn at ``temperature``). Or given responses: the text ``response`` to ``prompt``, or
    token ids ``prompts`` with the places ``response_start`` where each response starts; then nothing is written.

    *Numbers.* The ``share`` of heads that looks back least is the local group, that which looks back most the global one; ``layers``
    are all, or five in the middle third (``middle``: the paper's training); ``exclude`` drops what heads give to the first token or to
    the sinks ``found`` before they are sorted. ``waad`` in tokens, at most ``window``, and ``delta`` = WAAD of a token minus that of the
    next belong to the row of a token, with ``shift=1`` to the token that the row writes; so does ``entropy``, of the next token in nats.
    ``fai`` is the weight that tokens ``low`` to ``high`` places later give a token; ``high=0`` reaches to the end of the response. That is
    the paper's analysis; its training has 10 to 50 (version 1) or 10 to 100. ``sink`` is the weight that a token receives from all heads.

    *Choices.* ``preplan``: the share ``q`` with the largest |delta|; ``anchor``: that with the largest FAI. ``waad_peak``, ``fai_peak``:
    tokens above both neighbours and the median, or with ``prominence`` (in standard deviations) scipy's peaks; the paper does not say
    what its peaks are. ``dominated``: anchors with WAAD up to ``waad_quantile``, of which one of the ``k`` tokens before, the
    ``introductory`` one, has |delta| from ``delta_quantile`` on; the paper does not give its limits. ``sink``: tokens that receive more
    than 5 / length.

    *Tables.* ``statistics``: entropy at WAAD peaks; FAI peaks of receiver heads that are FAI peaks of the global group; WAAD peaks with a
    FAI peak there or right after. Each beside ``n_null_draws`` random places and circular shifts, and random heads. Receivers are the heads
    whose FAI has the highest kurtosis over tokens (in arXiv 2506.19143 over sentences), up to 20, no more than the global group.
    ``groups``: each head's distance, its group with and without sinks, and whether it is a receiver. ``introductory_tokens``: dominated anchors
    with their introductory tokens.

    *False positives*: every model has as many chosen tokens. Of untrained models 1 to 6 % have a p-value of 0.05 or less against random
    heads, whichever the statistic. Against circular shifts these are 3 to 7 % for entropy, none for the FAI peak after a WAAD peak, and
    78 to 94 % for receivers; against random places 3 to 8 %, 11 %, and 80 to 96 %.

    Raises ValueError for an encoder, texts without a response, or whose response is too short for the horizon, and for options outside
    what is said here.
    """
    options = {
        name: value for name, value in locals().items() if name not in ("model", "prompts", "response_start", "progress")
    }
    _check(model, options)
    question = ResponseOptions(task, n_prompts, prompt, response, n_tokens, temperature, seed)
    name, asked = texts_of(model, question, prompts, response_start)
    advance = _counter(progress, 2 * len(asked) + 2)
    examples = [advance(with_response(model, text, question, row)) for row, text in enumerate(asked)]
    check_responses(examples, low)
    seen = advance(_observed(model, examples, window, low, high))
    entropy = _padded([advance(next_token_entropy(model, e.clean, e.marks[RESPONSE][0]).numpy()) for e in examples], examples)
    told = {
        option: value for option, value in options.items() if option not in ("task", "prompt", "response", "n_tokens", "seed")
    }
    record = record_of(
        model,
        task=name,
        arguments={**told, "n_written_at_most": n_tokens, "n_prompts": len(examples)},
        metric="preplan_anchor",
        seed=seed,
    )

    sinks = seen.tokens("received_attention").values > SINK_SHARE / np.array([[len(e.clean)] for e in examples])
    chosen_layers = _layers(layers, model.facts.n_layers)
    read = partial(preplan_and_anchors, share=share, q=q, layers=chosen_layers)
    other, used = (read(seen), read(_without_sinks(model, seen, examples, sinks, exclude)))
    if exclude == "none":
        other, used = used, other
    receivers, kurtosis = _receivers(seen, used, chosen_layers)

    waad, delta, entropy = (_shift_rows(values, shift, examples) for values in (used.waad.values, used.delta.values, entropy))
    preplan = _shift_rows(np.where(used.preplan, 1.0, 0.0), shift, examples) == 1
    curves = _curves(seen, examples, waad, used.fai.values, entropy, receivers, chosen_layers, shift)
    where = [places for places, _ in curves]
    sizes = len(used.local_heads), len(used.global_heads)
    table = advance(coupling([c for _, c in curves], sizes, prominence=prominence, n_null_draws=n_null_draws, seed=seed))
    intro = _introductions(waad, delta, used.anchor, k, waad_quantile, delta_quantile)
    chosen = {
        "preplan": preplan,
        "anchor": used.anchor,
        "waad_peak": _marked([peaks(c.waad, prominence) for _, c in curves], where, waad.shape),
        "fai_peak": _marked([peaks(c.fai, prominence) for _, c in curves], where, waad.shape),
        "dominated": _at(intro, "anchor", waad.shape),
        "introductory": _at(intro, "introductory", waad.shape),
        "sink": sinks,
    }
    heads = {"local": used.local_heads, "global": used.global_heads, "receiver": receivers}
    return TokenDetection(
        "preplan_anchor",
        _scores(seen, used, examples, record, waad=waad, delta=delta, entropy=entropy),
        chosen,
        heads,
        {"statistics": table, "groups": _head_table(used, other, receivers, kurtosis), "introductions": intro},
        _details(seen, examples, used, other, receivers, chosen)
        | {"n_written": sum(len(e.clean) - len(text.tokens) for e, text in zip(examples, asked, strict=True))},
        prompt_digests(e.clean for e in examples),
    )


# -- numbers ------------------------------------------------------------------------------------------------------------------


def _check(model: Model, options: dict[str, Any]) -> None:
    model.facts.check_causal("preplan_anchor")
    for name, known in (("layers", LAYERS), ("exclude", EXCLUDE)):
        if options[name] not in known:
            raise ValueError(f"{name}={options[name]!r} is not known. There are: {', '.join(known)}.")
    for name, least in (("low", 0), ("shift", 0), ("n_null_draws", 1)):
        if options[name] < least:
            raise ValueError(f"{name}={options[name]} is too few: give at least {least}.")


def _observed(model: Model, examples: Sequence[Example], window: int, low: int, high: int) -> Observation:
    names = [
        "attention_distance",
        f"windowed_distance:window={window}",
        f"future_attention:low={low}:high={high}:positions={RESPONSE}",
        f"received_attention:min_rows={SINK_ROWS}",
    ]
    [first] = attention_metrics(["attention_distance:exclude=0"])
    return observe_attention(model, examples, [*names, replace(first, name="distance_without_first")])


def _without_sinks(
    model: Model, seen: Observation, examples: Sequence[Example], sinks: np.ndarray, exclude: str
) -> Observation:
    """The same with distances that leave sinks out: the first token or, for ``found``, those of each text."""
    distance = seen["distance_without_first"]
    if exclude == "found":
        [metric] = attention_metrics(["attention_distance"])
        distance = torch.full_like(distance, torch.nan)
        for row, example in enumerate(examples):
            found = tuple(np.flatnonzero(sinks[row]).tolist())
            alone = observe_attention(model, [example], [metric.set(exclude=found)])["attention_distance"]
            distance[:, row : row + 1, :, : alone.shape[-1]] = alone
    return replace(seen, values={**seen.values, "attention_distance": distance})


def _layers(layers: str, n_layers: int) -> list[int]:
    if layers == "all":
        return list(range(n_layers))
    return sorted({int(layer) for layer in np.linspace(n_layers // 3, min(2 * n_layers // 3, n_layers - 1), 5).round()})


def _receivers(seen: Observation, used: PreplanAnchors, layers: Sequence[int]) -> tuple[tuple[Head, ...], np.ndarray]:
    """The heads whose later attention is most peaked over the tokens of a response, and that kurtosis, mean over texts."""
    from scipy.stats import kurtosis

    response = ~np.isnan(used.waad.values)
    found = np.full((*used.distance.values.shape, len(response)), np.nan)
    for row, places in enumerate(response):
        values = seen["future_attention"][:, row].double().cpu().numpy()[..., places]
        known = ~np.isnan(values)
        varied = np.where(known, values, -np.inf).max(-1) - np.where(known, values, np.inf).min(-1) > ROUNDING
        found[varied, row] = kurtosis(values[varied], axis=-1, nan_policy="omit")
    count = (~np.isnan(found)).sum(-1)
    mean = np.nansum(found, -1) / np.where(count, count, np.nan)
    mean[[layer for layer in range(len(mean)) if layer not in layers]] = np.nan
    order = np.argsort(-mean.ravel(), kind="stable")[: min(N_RECEIVERS, len(used.global_heads), (~np.isnan(mean)).sum())]
    return tuple(Head(*divmod(int(i), mean.shape[1])) for i in order), mean


def _curves(
    seen: Observation,
    examples: Sequence[Example],
    waad: np.ndarray,
    fai: np.ndarray,
    entropy: np.ndarray,
    receivers: Sequence[Head],
    layers: Sequence[int],
    shift: int,
) -> list[tuple[slice, Curves]]:
    """Of each text the places that have every number, and the numbers there."""
    received = seen.tokens("future_attention", receivers).values
    tables = [
        seen[name][list(layers)].transpose(1, 2).flatten(0, 1).double().cpu().numpy()
        for name in ("windowed_distance", "future_attention")
    ]
    found = []
    for row in range(len(examples)):
        known = np.flatnonzero(~np.isnan(waad[row] + fai[row] + entropy[row]))
        if len(known) < 3:
            raise ValueError(
                f"Text {row} has {len(known)} tokens with an influence: its response is too short for the horizon."
            )
        at = slice(int(known[0]), int(known[-1]) + 1)
        back = slice(at.start - shift, at.stop - shift)
        per_head = tables[0][:, row, back], tables[1][:, row, at]
        found.append((at, Curves(waad[row, at], fai[row, at], received[row, at], entropy[row, at], *per_head)))
    return found


def _padded(rows: Sequence[np.ndarray], examples: Sequence[Example]) -> np.ndarray:
    """Numbers of response tokens as [batch pos], NaN elsewhere."""
    table = np.full((len(examples), max(len(e.clean) for e in examples)), np.nan)
    for row, values, example in zip(table, rows, examples, strict=True):
        row[slice(*example.marks[RESPONSE])] = values
    return table


def _shift_rows(values: np.ndarray, shift: int, examples: Sequence[Example]) -> np.ndarray:
    """Numbers of rows given to the token ``shift`` places later, within the response."""
    parts = [row[slice(*e.marks[RESPONSE])] for row, e in zip(values, examples, strict=True)]
    return _padded([np.concatenate([np.full(shift, np.nan), part])[: len(part)] for part in parts], examples)


def _introductions(
    waad: np.ndarray, delta: np.ndarray, anchor: np.ndarray, k: int, waad_quantile: float, delta_quantile: float
) -> pd.DataFrame:
    """One row a dominated anchor: ``example anchor introductory waad delta`` (places in the text; delta of the introductory token)."""
    rows = [
        (row, at, before, waad[row, at], delta[row, before])
        for row in range(len(waad))
        for at, before in introductory_tokens(waad[row], delta[row], anchor[row], k, waad_quantile, delta_quantile).items()
    ]
    kinds = {"example": "int32", "anchor": "int32", "introductory": "int32", "waad": "float64", "delta": "float64"}
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


# -- results ------------------------------------------------------------------------------------------------------------------


def _scores(
    seen: Observation, used: PreplanAnchors, examples: Sequence[Example], record: RunRecord, **rows: np.ndarray
) -> dict[str, TokenScores]:
    token_mask = seen.prompts.token_mask.cpu().numpy()
    words = tuple(
        tuple(word if kept else "" for word, kept in zip(*text, strict=True))
        for text in zip(seen.words, token_mask, strict=True)
    )
    late = "not a token of the response, or of its end"

    def scores(name: str, values: np.ndarray, unit: str, bounds: tuple[float | None, float | None]) -> TokenScores:
        return TokenScores(name, values, words, unit, bounds, replace(record, metric=name), nan_reason=late)

    return {
        "waad": scores("waad", rows["waad"], "tokens", used.waad.bounds),
        "fai": scores("fai", used.fai.values, "weight", used.fai.bounds),
        "delta": scores("delta", rows["delta"], "tokens", (None, None)),
        "entropy": scores("entropy", rows["entropy"], "nats", (0.0, None)),
        "sink": scores("sink", seen.tokens("received_attention").values, "weight", (0.0, 1.0)),
    }


def _marked(parts: Sequence[np.ndarray], where: Sequence[slice], shape: tuple[int, ...]) -> np.ndarray:
    table = np.zeros(shape, dtype=bool)
    for row, part, at in zip(table, parts, where, strict=True):
        row[at] = part
    return table


def _at(found: pd.DataFrame, column: str, shape: tuple[int, ...]) -> np.ndarray:
    table = np.zeros(shape, dtype=bool)
    table[found["example"], found[column]] = True
    return table


def _head_table(used: PreplanAnchors, other: PreplanAnchors, receivers: Sequence[Head], kurtosis: np.ndarray) -> pd.DataFrame:
    """One row a head: ``layer head label group distance group_other distance_other receiver kurtosis``; *other* is the split that treats
    sinks the other way."""
    table = used.distance.to_dataframe().drop(columns=["metric", "value", "unit"])
    for split, ending in ((used, ""), (other, "_other")):
        group: dict[Any, str] = {**dict.fromkeys(split.local_heads, "local"), **dict.fromkeys(split.global_heads, "global")}
        table[f"group{ending}"] = [group.get(head, "") for head in np.ndindex(kurtosis.shape)]
        table[f"distance{ending}"] = split.distance.values.ravel()
    table["receiver"], table["kurtosis"] = [head in receivers for head in np.ndindex(kurtosis.shape)], kurtosis.ravel()
    return table


def _details(
    seen: Observation,
    examples: Sequence[Example],
    used: PreplanAnchors,
    other: PreplanAnchors,
    receivers: Sequence[Head],
    chosen: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Counts; how far the groups agree with those of single texts and of the other treatment of sinks (Jaccard overlap); and how much of
    what was chosen is punctuation."""
    response = ~np.isnan(used.waad.values)
    signs = np.array([[not any(letter.isalnum() for letter in word) for word in text] for text in seen.words])
    return {
        "n_texts": len(examples),
        "n_response_tokens": int(response.sum()),
        "n_chosen": {name: int(marks.sum()) for name, marks in chosen.items()},
        "overlap_with_single_texts": dict(zip(("local", "global"), used.overlap.mean(0).tolist(), strict=True)),
        "overlap_with_other_sinks": {
            "local": _jaccard(used.local_heads, other.local_heads),
            "global": _jaccard(used.global_heads, other.global_heads),
        },
        "receivers_in_global": len({*receivers} & {*used.global_heads}) / max(len(receivers), 1),
        "punctuation": {
            name: float(signs[marks].mean()) if marks.any() else None
            for name, marks in {"response": response, **{name: chosen[name] for name in ("preplan", "anchor")}}.items()
        },
    }


def _jaccard(one: Sequence[Head], other: Sequence[Head]) -> float:
    return len({*one} & {*other}) / len({*one} | {*other})


def _counter(progress: Progress | None, total: int) -> Any:
    """A function that gives back what it is given, and counts."""
    done = 0

    def advance(made: Any) -> Any:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)
        return made

    return advance
