"""How much each head matters: the tables of a sweep, with the statistics that every effect carries.

``effect = metric(changed) - metric(clean)``, averaged over prompts; negative = the head helped, where larger outcomes are better
(``sign_meaning`` says it for each metric). A head is ``exceeds_control`` when its whole interval is farther from 0 than that of the mean
effect of all other heads and its q-value is at most 0.05; ``exceeds_layer_control`` asks the same against the other heads of its
layer, which tells a special head from a special layer. In a layer with two strong heads among few, each hides the other there: read both.
With many heads that mean is known closely and a small effect can be distinct from it: read the effect, too.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.heads import Head, HeadScores
from interp.metrics.outcomes import OUTCOMES
from interp.statistics import benjamini_hochberg, bootstrap_weights, mean_interval, random_head_control, sign_flip_p_value

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.sweep.sweep import SweepResult
    from interp.records import RunRecord

SIGNIFICANCE_LEVEL = 0.05
UNITS = {"p_value": "probability", "q_value": "false-discovery rate", "sign_consistency": "share of prompts", "n": "prompts"}
ID_COLUMNS = ("layer", "head", "kv_head", "layer2", "head2", "kv_head2", "seed")  # numbers that name a row and measure nothing
NO_HEAD = -1  # layer2 and head2 of a single head in a table that also holds pairs


def effect_columns(result: SweepResult, seed: int) -> dict[str, np.ndarray]:
    """The numbers of the table of heads, one value per variant: effect, interval, p, q, controls, baseline, value (and interaction).

    Raises ValueError when effects are missing, not finite, or the same everywhere.
    """
    check_effects(result)
    pairs = np.array([len(v) == 2 for v in result.variants])
    effects, values = (np.ascontiguousarray(x) for x in (result.effects, result.values))  # sums depend on the layout in memory
    weights = bootstrap_weights(effects.shape[1], seed)
    columns: dict[str, np.ndarray] = {}
    for family in (np.flatnonzero(~pairs), np.flatnonzero(pairs)):
        layers = [tuple(head.layer for head in result.variants[i]) for i in family]
        for name, column in _statistics(effects[family], layers, weights, seed).items():
            columns.setdefault(name, np.empty(len(pairs), column.dtype))[family] = column
    columns |= {"baseline": np.full(len(pairs), result.baseline.mean()), "value": values.mean(1)}
    return columns | (_interactions(result.variants, effects, weights) if pairs.any() else {})


def head_columns(variants: Sequence[tuple[Head, ...]], group_size: int) -> dict[str, Any]:
    """The columns that identify the heads of each variant; ``group_size`` query heads share one key/value head."""
    sizes = {len(variant) for variant in variants}
    if not sizes <= {1, 2}:
        raise ValueError(f"A sweep ablates one head or two at a time, not {max(sizes - {1, 2})}.")
    columns: dict[str, Any] = {}
    for suffix, side in (("", 0), ("2", 1)):
        if side < max(sizes):
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
    """One column of a head table as one number per head; ``shape`` is (n_layers, n_heads), heads that are not in the table are NaN.

    ``nan_reason`` says why a head may have no number. Rows of pairs are left out. Raises LookupError for a column that is not there or holds
    no numbers.
    """
    numbers = (str(name) for name in table.select_dtypes("number").columns)
    known = [name for name in numbers if name not in ID_COLUMNS]
    if column not in known:
        raise LookupError(f"The table has no column of numbers called {column!r}. There are: {', '.join(known)}.")
    rows = table.query("layer2 == @NO_HEAD") if "layer2" in table else table
    values = np.full(tuple(shape), np.nan)
    values[rows["layer"].to_numpy(), rows["head"].to_numpy()] = rows[column].to_numpy()
    metric = str(rows["metric"].iloc[0])
    name = metric if column == "value" and "effect" not in table else f"{column} on {metric}"
    return HeadScores(name, values, UNITS.get(column, str(rows["unit"].iloc[0])), bounds, record, nan_reason)


def agreement(estimate: HeadScores, exact: HeadScores, k: int = 10) -> dict[str, Any]:
    """How well an estimate of the effects agrees with the exact ones, over the ``n`` heads that both measured.

    ``spearman`` is the rank correlation (None where one side is constant or n < 3), ``top_overlap`` the share of the ``k`` heads of
    largest exact magnitude that the estimate also puts among its ``k`` largest (``k`` is cut to n), ``same_sign`` the share of heads
    with an exact effect other than 0 whose estimate has its sign (None where all are 0). Raises ValueError without a shared head.
    """
    from scipy.stats import rankdata

    if estimate.values.shape != exact.values.shape:
        raise ValueError(
            f"The estimate has shape {estimate.values.shape}, the exact scores {exact.values.shape}: they are of two models."
        )
    both = ~np.isnan(estimate.values) & ~np.isnan(exact.values)
    guess, true = estimate.values[both], exact.values[both]
    if not len(true):
        raise ValueError("No head was measured by both the estimate and the exact sweep.")
    ranked = len(true) >= 3 and np.ptp(guess) > 0 and np.ptp(true) > 0
    spearman = float(np.corrcoef(rankdata(guess), rankdata(true))[0, 1]) if ranked else None
    k = min(k, len(true))
    top = [set(np.argsort(-np.abs(side), kind="stable")[:k].tolist()) for side in (guess, true)]
    moved = true != 0
    same = float((np.sign(guess) == np.sign(true))[moved].mean()) if moved.any() else None
    return {"n": len(true), "spearman": spearman, "k": k, "top_overlap": len(top[0] & top[1]) / k, "same_sign": same}


def check_effects(result: SweepResult) -> None:
    """Raises ValueError when a sweep's numbers cannot be true: none, not finite (the head is named), or the same for every head."""
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
            f"{result.metric} with {label(result.variants[row])} changed ({result.ablation}) is {result.values[row, example]} "
            f"on example {example}."
        )
    effects = result.effects
    if not effects.any():
        raise ValueError(
            f"Nothing was changed: every effect of {result.ablation} at positions {result.positions!r} on {result.metric} is exactly 0. "
            f"Either no intervention reached the model or this metric cannot see it; try logit_diff."
        )
    if len(effects) > 1 and effects.size > len(effects) and np.ptp(effects) == 0:
        raise ValueError(
            f"Every head and prompt has the same effect ({effects[0, 0]:g} on {result.metric}): the interventions did not differ."
        )


def sign_meaning(metric: str) -> str:
    """How to read the sign of an effect on this metric; it may be the outcome of a package that is not installed here."""
    return OUTCOMES.get(metric).sign_meaning if metric in OUTCOMES.names() else "negative = the metric fell"


def label(variant: Sequence[Head]) -> str:
    """``L5H1``, or ``L5H1+L7H0`` for a pair."""
    return "+".join(str(Head(*head)) for head in variant)


def _statistics(effects: np.ndarray, layers: list[tuple[int, ...]], weights: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The statistics of one family of rows: all single heads, or all pairs."""
    interval = mean_interval(effects, weights)
    p_values = sign_flip_p_value(effects, seed)
    columns = {
        "effect": interval.mean,
        "n": np.full(len(effects), effects.shape[1], dtype="int32"),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "p_value": p_values,
        "q_value": benjamini_hochberg(p_values),
        "sign_consistency": (np.sign(effects) == np.sign(interval.mean)[:, None]).mean(1),
    }
    everyone: list[Hashable] = ["all"] * len(effects)
    for prefix, flag, groups in (("control", "exceeds_control", everyone), ("layer_control", "exceeds_layer_control", layers)):
        control = random_head_control(effects, groups, weights, seed)
        columns |= {prefix: control.mean, f"{prefix}_ci_low": control.low, f"{prefix}_ci_high": control.high}
        columns[flag] = interval.exceeds(control) & (columns["q_value"] <= SIGNIFICANCE_LEVEL)
    return columns


def _interactions(variants: Sequence[tuple[Head, ...]], effects: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Interaction of each pair with its interval; NaN in the rows of single heads.

    Raises ValueError for a pair whose heads were not measured alone as well.
    """
    row = {variant: i for i, variant in enumerate(variants)}
    pairs = [(i, variant) for i, variant in enumerate(variants) if len(variant) == 2]
    alone = next((head for _, variant in pairs for head in variant if (head,) not in row), None)
    if alone is not None:
        raise ValueError(
            f"The interaction of a pair needs each of its heads alone, and {alone} was only changed together with others."
        )
    at = np.array([i for i, _ in pairs])
    first, second = (np.array([row[(variant[side],)] for _, variant in pairs]) for side in (0, 1))
    interval = mean_interval(effects[at] - effects[first] - effects[second], weights)
    columns = {name: np.full(len(effects), np.nan) for name in ("interaction", "interaction_ci_low", "interaction_ci_high")}
    for column, values in zip(columns.values(), (interval.mean, interval.low, interval.high), strict=True):
        column[at] = values
    return columns
