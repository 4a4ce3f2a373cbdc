"""Preplan and anchor tokens, where a text attends far back, and what it keeps attending to (arXiv 2510.13554).

Heads are grouped by how far back they attend: the nearest form the local group, the farthest the global group. WAAD is the
windowed distance of the local group at each token, FAI the weight a token receives from later ones in the global group; a
group's pattern is the mean of its heads. Preplan tokens are those after which WAAD changes most, anchors those with the highest
FAI. It does not define the peaks it counts; here they exceed both neighbours and the median.

Heads with a sink attend farthest of all and fill the global group with nearly empty patterns: observe
``attention_distance:exclude=0`` as well, and compare. WAAD and FAI of a token are those of its own row and column.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from interp._short_repr import short_repr
from interp.engine.attention.attention_observer import Observation
from interp.heads import Head, HeadScores, TokenScores

Heads = tuple[Head, ...]
REQUIRED_METRICS = ("attention_distance", "windowed_distance", "future_attention")
"""Metrics to observe first; the ``positions`` of ``future_attention`` are the response."""

NO_DISTANCE = "a head of another layer, or without a distance"
ROUNDING = 1e-6
"""Smaller differences of WAAD or FAI are float32 rounding."""


@short_repr
@dataclass(frozen=True, eq=False)
class PreplanAnchors:
    """Groups of heads and selected tokens.

    ``distance``, over the response tokens of all texts, splits the heads; ``overlap`` [batch 2] is the Jaccard overlap of each
    text's own groups with ``local_heads`` and ``global_heads``. ``waad`` and ``delta`` (WAAD of a token minus that of the next;
    positive where it falls) cover response tokens, ``fai`` also earlier ones. ``is_preplan`` and ``is_anchor`` select tokens.
    """

    distance: HeadScores
    local_heads: Heads
    global_heads: Heads
    overlap: np.ndarray
    waad: TokenScores
    fai: TokenScores
    delta: TokenScores
    is_preplan: np.ndarray
    is_anchor: np.ndarray


def preplan_and_anchors(
    observation: Observation, share: float = 0.3, q: float = 0.4, layers: Sequence[int] | None = None
) -> PreplanAnchors:
    """Both groups of heads, the scores of every token, and the preplan tokens and anchors of each response.

    Each group is a ``share`` of the heads (of ``layers``, or of all); preplan tokens and anchors are the top ``q`` of the
    tokens, ignoring NaN; tokens with NaN or 0 are never selected. Raises LookupError if one of ``REQUIRED_METRICS`` was not
    observed, ValueError for invalid shares.
    """
    tables = {name: observation[name] for name in REQUIRED_METRICS}
    response = observation.prompts.position_mask(observation.metrics["future_attention"].parameters["positions"]).cpu().numpy()
    distance = np.where(response[:, None], tables["attention_distance"].double().cpu().numpy(), np.nan)
    if layers is not None:
        distance[[layer for layer in range(len(distance)) if layer not in layers]] = np.nan
    pooled = _mean(distance, (1, 3))
    groups = split_heads(pooled, share)
    own = [split_heads(_mean(text, 2), share) for text in distance.swapaxes(0, 1)]
    waad = observation.tokens("windowed_distance", groups[0])
    waad = replace(waad, name="waad", values=np.where(response, waad.values, np.nan), nan_reason="not a token of the response")
    fai = replace(observation.tokens("future_attention", groups[1]), name="fai")
    falls = np.full_like(waad.values, np.nan)
    falls[:, :-1] = waad.values[:, :-1] - waad.values[:, 1:]
    distances = replace(observation.heads("attention_distance"), values=pooled, nan_reason=NO_DISTANCE)
    overlap = np.array([[jaccard(a, b) for a, b in zip(text, groups, strict=True)] for text in own])
    delta = replace(waad, name="waad_delta", values=falls, bounds=(None, None), nan_reason="no token of the response follows")
    is_preplan = top_tokens(np.where(np.abs(falls) > ROUNDING, np.abs(falls), falls * 0), q)
    is_anchor = top_tokens(np.where(response, fai.values, np.nan), q)
    return PreplanAnchors(distances, *groups, overlap, waad, fai, delta, is_preplan, is_anchor)


def split_heads(distance: Float[np.ndarray, "n_layers n_heads"], share: float = 0.3) -> tuple[Heads, Heads]:
    """The ``share`` of heads with the smallest distance, nearest first, and that with the largest, farthest first. Ties go to
    the earlier head as nearer; heads without a distance are in neither. ValueError for other shares or fewer than two heads."""
    order = [i for i in np.argsort(distance.ravel(), kind="stable") if not np.isnan(distance.ravel()[i])]
    if not 0 < share <= 0.5 or len(order) < 2:
        given = f"{len(order)} heads cannot be split into two groups of share={share}"
        raise ValueError(f"{given}: use 0 < share <= 0.5 and at least 2 heads.")
    k = min(max(1, round(share * len(order))), len(order) // 2)
    heads = [Head(*divmod(int(i), distance.shape[1])) for i in order]
    return tuple(heads[:k]), tuple(heads[: -k - 1 : -1])


def jaccard(one: Sequence[Head], other: Sequence[Head]) -> float:
    """The share of the heads of both groups that are in each of them."""
    return len({*one} & {*other}) / len({*one} | {*other})


def top_tokens(values: Float[np.ndarray, "batch pos"], q: float = 0.4) -> Bool[np.ndarray, "batch pos"]:
    """The largest share ``q`` of each text's values as True, at least one; never NaN or 0. Ties go to the earlier token."""
    if not 0 < q <= 1:
        raise ValueError(f"q={q} is not a share of the tokens: use 0 < q <= 1.")
    selected = np.zeros(values.shape, dtype=bool)
    for row, text in enumerate(values):
        selected[row, np.argsort(-text, kind="stable")[: max(1, round(q * np.isfinite(text).sum()))]] = True
    return selected & (values > 0)


def peaks(series: Float[np.ndarray, "*series pos"], prominence: float | None = None) -> Bool[np.ndarray, "*series pos"]:
    """Peaks as True: values above both neighbours and the median of the series; never at its ends. With ``prominence``, in
    standard deviations of the series, the peaks of ``scipy.signal.find_peaks``."""
    is_peak = np.zeros(series.shape, dtype=bool)
    if prominence is None:
        inside, median = series[..., 1:-1] - ROUNDING, np.median(series, axis=-1, keepdims=True)
        is_peak[..., 1:-1] = (inside > series[..., :-2]) & (inside > series[..., 2:]) & (inside > median)
        return is_peak
    from scipy.signal import find_peaks

    for at in np.ndindex(series.shape[:-1]):
        is_peak[at][find_peaks(series[at], prominence=max(prominence * series[at].std(), ROUNDING))[0]] = True
    return is_peak


def introductory_tokens(
    waad: Float[np.ndarray, " pos"],
    delta: Float[np.ndarray, " pos"],
    is_anchor: Bool[np.ndarray, " pos"],
    k: int = 3,
    waad_quantile: float = 0.5,
    delta_quantile: float = 0.6,
) -> dict[int, int]:
    """The locally dominated anchors of one text, each with its introductory token: the largest |delta| of ``k`` before it. An
    anchor is dominated if its WAAD is at most a quantile of the text's and |``delta``| of the introductory token is at least a
    quantile of the text's. The paper uses limits and does not give them. Raises ValueError for an invalid k or quantile."""
    if k < 1 or not (0 <= waad_quantile <= 1 and 0 <= delta_quantile <= 1):
        given = f"k={k}, waad_quantile={waad_quantile}, delta_quantile={delta_quantile}"
        raise ValueError(f"{given}: use k of at least 1 and quantiles of 0 to 1.")
    change = np.abs(delta)
    near, far = np.nanquantile(waad, waad_quantile), np.nanquantile(change, delta_quantile)
    introductions = {}
    for at in np.flatnonzero(is_anchor & (waad <= near)):
        before = np.nan_to_num(change[max(at - k, 0) : at], nan=-1.0)
        if len(before) and before.max() >= max(far, ROUNDING):
            introductions[int(at)] = int(at - len(before) + before.argmax())
    return introductions


def _mean(values: np.ndarray, axes: int | tuple[int, ...]) -> np.ndarray:
    """Mean ignoring NaN; NaN where all are NaN."""
    count = (~np.isnan(values)).sum(axes)
    return np.nansum(values, axes) / np.where(count, count, np.nan)
