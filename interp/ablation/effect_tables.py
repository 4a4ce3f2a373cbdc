"""The columns of the table of heads: every effect with its interval, p- and q-value and controls.

``effect = metric(ablated) - metric(clean)``, averaged over prompts; ``sign_meaning`` says how to read its sign. Intervals and p-values are
over prompts, or over the clusters that the record names for them (``n_clusters``). ``exceeds_control`` is
True where the whole interval of a head is farther from 0 than the interval of the mean effect of all other heads and its q-value is at
most 0.05; ``exceeds_layer_control`` is the same against the other heads of its layer, which separates a special head from a special
layer. In a layer with few heads of which two are strong, each masks the other: read both columns. With many heads the control is
estimated precisely, and even a small effect can exceed it: read the effect as well.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.heads import Head, HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.statistics import (
    Resamples,
    benjamini_hochberg,
    cluster_sums,
    estimate_agreement,
    mean_interval,
    random_head_control,
    resample_prompts,
    sign_flip_p_value,
)

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.sweep.sweep import SweepResult
    from interp.records import RunRecord

SIGNIFICANCE_LEVEL = 0.05
UNITS = {"p_value": "probability", "q_value": "false-discovery rate", "sign_consistency": "share of prompts"}
UNITS |= {"n": "prompts", "n_clusters": "clusters of prompts"}
ID_COLUMNS = ("layer", "head", "kv_head", "layer2", "head2", "kv_head2", "seed")  # numeric, but not measurements
NO_HEAD = -1  # layer2 and head2 of single heads in a table that also has pairs


def effect_columns(result: SweepResult, seed: int) -> dict[str, np.ndarray]:
    """The numeric columns of the table of heads, one value per variant; ``seed`` is that of the bootstrap and the sign flips.

    Raises ValueError when effects are missing, not finite, or the same everywhere.
    """
    check_effects(result)
    pairs = np.array([len(v) == 2 for v in result.variants])
    # contiguous, since the last bits of a sum depend on the memory layout
    effects, values = (np.ascontiguousarray(x) for x in (result.effects, result.values))
    clusters = result.record.clusters
    resamples = resample_prompts(effects.shape[1], seed, clusters)
    columns: dict[str, np.ndarray] = {}
    for family in (np.flatnonzero(~pairs), np.flatnonzero(pairs)):
        layers = [tuple(head.layer for head in result.variants[i]) for i in family]
        for name, column in _statistics(effects[family], layers, resamples, clusters, seed).items():
            columns.setdefault(name, np.empty(len(pairs), column.dtype))[family] = column
    columns |= {"baseline": np.full(len(pairs), result.baseline.mean()), "value": values.mean(1)}
    return columns | (_interactions(result.variants, effects, resamples) if pairs.any() else {})


def head_columns(variants: Sequence[tuple[Head, ...]], group_size: int) -> dict[str, Any]:
    """The columns that identify the heads of each variant; ``group_size`` query heads share one key/value head."""
    sizes = {len(variant) for variant in variants}
    if not sizes <= {1, 2}:
        raise ValueError(f"A sweep ablates one head or two at a time, not {max(sizes - {1, 2})}.")
    columns: dict[str, Any] = {}
    for side, suffix in enumerate(("", "2")[: max(sizes)]):
        heads = [v[side] if side < len(v) else Head(NO_HEAD, NO_HEAD) for v in variants]
        columns[f"layer{suffix}"] = np.array([h.layer for h in heads], dtype="int32")
        columns[f"head{suffix}"] = np.array([h.head for h in heads], dtype="int32")
        kv_heads = [h.head // group_size if h.layer >= 0 else NO_HEAD for h in heads]
        columns[f"kv_head{suffix}"] = np.array(kv_heads, dtype="int32")
    return {**columns, "label": [label(variant) for variant in variants]}


def head_scores(
    table: pd.DataFrame,
    record: RunRecord,
    shape: Sequence[int],
    column: str = "effect",
    bounds: tuple[float | None, float | None] = (None, None),
    nan_reason: str = "",
) -> HeadScores:
    """A numeric column of a table of heads as ``HeadScores``; ``shape`` is (n_layers, n_heads), heads missing from the table are NaN.

    ``nan_reason`` says why a head may be NaN. Pairs are ignored. Raises LookupError for a column that does not exist or is not numeric.
    """
    numbers = (str(name) for name in table.select_dtypes("number").columns)
    known = [name for name in numbers if name not in ID_COLUMNS]
    if column not in known:
        raise LookupError(f"The table has no numeric column {column!r}. There are: {', '.join(known)}.")
    rows = table.query("layer2 == @NO_HEAD") if "layer2" in table else table
    values = np.full(tuple(shape), np.nan)
    values[rows["layer"].to_numpy(), rows["head"].to_numpy()] = rows[column].to_numpy()
    metric = str(rows["metric"].iloc[0])
    name = metric if column == "value" and "effect" not in table else f"{column} on {metric}"
    return HeadScores(name, values, UNITS.get(column, str(rows["unit"].iloc[0])), bounds, record, nan_reason)


def agreement(estimate: HeadScores, exact: HeadScores, k: int = 10) -> dict[str, Any]:
    """``estimate_agreement`` over the heads that have both an estimated and an exact effect. Raises ValueError without one."""
    if estimate.values.shape != exact.values.shape:
        raise ValueError(
            f"The estimate has shape {estimate.values.shape}, the exact scores {exact.values.shape}: they come from two models."
        )
    both = ~np.isnan(estimate.values) & ~np.isnan(exact.values)
    if not both.any():
        raise ValueError("No head has both an estimated and an exact effect.")
    return estimate_agreement(estimate.values[both], exact.values[both], k)


def check_effects(result: SweepResult) -> None:
    """Raises ValueError when effects are missing, not finite (the head is named), all 0 or the same for every head and prompt."""
    if not result.variants or result.values.shape != (len(result.variants), len(result.baseline)):
        raise ValueError(
            f"The sweep has values of shape {result.values.shape} for {len(result.variants)} heads and {len(result.baseline)} examples."
        )
    if not np.isfinite(result.baseline).all():
        example = int(np.flatnonzero(~np.isfinite(result.baseline))[0])
        raise ValueError(
            f"{result.metric} of the clean run is {result.baseline[example]} on example {example}: the model or the task is broken."
        )
    broken = np.argwhere(~np.isfinite(result.values))
    if len(broken):
        row, example = map(int, broken[0])
        raise ValueError(
            f"{result.metric} with {label(result.variants[row])} ablated ({result.ablation}) is {result.values[row, example]} "
            f"on example {example}."
        )
    effects = result.effects
    if not effects.any():
        raise ValueError(
            f"Every effect of {result.ablation} at positions {result.positions!r} on {result.metric} is exactly 0: either the intervention "
            f"did not reach the model or the metric is insensitive to it. Try logit_diff."
        )
    if len(effects) > 1 and effects.size > len(effects) and np.ptp(effects) == 0:
        raise ValueError(
            f"Every head and prompt has the same effect ({effects[0, 0]:g} on {result.metric}): the interventions do not differ."
        )


def sign_meaning(metric: str) -> str:
    """How to read the sign of an effect on this metric; it may be the outcome of a package that is not installed here."""
    return OUTCOMES.get(metric).sign_meaning if metric in OUTCOMES.names() else "negative = the metric fell"


def label(variant: Sequence[Head]) -> str:
    """``L5H1``, or ``L5H1+L7H0`` for a pair."""
    return "+".join(str(Head(*head)) for head in variant)


def _statistics(
    effects: np.ndarray, layers: list[tuple[int, ...]], resamples: Resamples, clusters: Sequence[str] | None, seed: int
) -> dict[str, np.ndarray]:
    """The statistics of one family of variants: all single heads, or all pairs."""
    interval = mean_interval(effects, resamples)
    p_values = sign_flip_p_value(cluster_sums(effects, clusters), seed)
    columns = {"effect": interval.mean}
    columns |= {name: np.full(len(effects), size, dtype="int32") for name, size in resamples.sizes.items()}
    columns |= {"ci_low": interval.low, "ci_high": interval.high}
    columns |= {"p_value": p_values, "q_value": benjamini_hochberg(p_values)}
    columns["sign_consistency"] = (np.sign(effects) == np.sign(interval.mean)[:, None]).mean(1)
    all_heads: list[Hashable] = ["all"] * len(effects)
    for prefix, flag, groups in (("control", "exceeds_control", all_heads), ("layer_control", "exceeds_layer_control", layers)):
        control = random_head_control(effects, groups, resamples, seed)
        columns |= {prefix: control.mean, f"{prefix}_ci_low": control.low, f"{prefix}_ci_high": control.high}
        columns[flag] = interval.exceeds(control) & (columns["q_value"] <= SIGNIFICANCE_LEVEL)
    return columns


def _interactions(variants: Sequence[tuple[Head, ...]], effects: np.ndarray, resamples: Resamples) -> dict[str, np.ndarray]:
    """Interaction of each pair with its interval; NaN for single heads. Raises ValueError where a head was not ablated alone as well."""
    row = {variant: i for i, variant in enumerate(variants)}
    pairs = [(i, variant) for i, variant in enumerate(variants) if len(variant) == 2]
    alone = next((head for _, variant in pairs for head in variant if (head,) not in row), None)
    if alone is not None:
        raise ValueError(
            f"The interaction of a pair needs the effect of each head alone, and {alone} was only ablated together with others."
        )
    at = np.array([i for i, _ in pairs])
    first, second = (np.array([row[(variant[side],)] for _, variant in pairs]) for side in (0, 1))
    interval = mean_interval(effects[at] - effects[first] - effects[second], resamples)
    columns = {name: np.full(len(effects), np.nan) for name in ("interaction", "interaction_ci_low", "interaction_ci_high")}
    for column, values in zip(columns.values(), (interval.mean, interval.low, interval.high), strict=True):
        column[at] = values
    return columns
