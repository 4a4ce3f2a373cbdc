"""The result of a confirmation: outcome and effect of every set of ablated heads, and the curve over k.

``effect = metric(ablated) - metric(clean)``; negative = the heads helped. Intervals are 95%, by bootstrap: those of a set over prompts,
or over their ``n_clusters``, those of a point of the curve over draws as well. Each resample reweights the prompts
and draws as many draws as there are, with replacement, at the levels of ``expanded_levels`` for the smaller of the two counts. Nothing is
corrected for the number of points: read the curve, not its best point. Prompts that all have the same outcome give an interval of width 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from interp._short_repr import short_repr, table_html
from interp.confirmation.head_sets import HeadSet
from interp.records import RunRecord
from interp.statistics import Interval, Resamples, draw_weights, expanded_levels, mean_interval, resample_prompts
from interp.tasks.task import Example, Task

ANSWER_MARKS = ("needle", "value")
"""Marks of the position of the answer, which gives its depth in the prompt."""


@short_repr
@dataclass(frozen=True, eq=False)
class Confirmation:
    """The ablation curve of a role.

    ``table`` has one row per set of heads: ``task positions group k draw heads``, the mean outcome ``value`` over ``n`` prompts with
    ``ci_low ci_high``, and ``effect`` with ``effect_ci_low effect_ci_high``; the clean run is ``detected`` with k = 0. ``tables["curve"]``
    has one row per point, the mean over its ``n_draws`` (of which ``n_sets`` differ), with the same numbers. ``tables["prompts"]`` has one
    row per set and prompt: ``example depth value baseline``, where ``depth`` is the share of the prompt before the answer.
    """

    role: str
    table: pd.DataFrame
    record: RunRecord
    details: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def by_depth(self, bins: int = 5) -> pd.DataFrame:
        """The curve by position of the answer in the prompt, in ``bins`` of equal width.

        Columns: ``task positions k group depth`` (centre of the bin), ``value effect`` (means), ``n`` prompts. Empty without depths.
        """
        rows = self.tables["prompts"].dropna(subset=["depth"])
        centre = (np.minimum(np.floor(rows["depth"] * bins), bins - 1) + 0.5) / bins
        rows = rows.assign(depth=centre, effect=rows["value"] - rows["baseline"])
        points = rows.groupby(["task", "positions", "k", "group", "depth"])
        return points.agg(value=("value", "mean"), effect=("effect", "mean"), n=("example", "nunique")).reset_index()

    def to_dataframe(self) -> pd.DataFrame:
        """``table``."""
        return self.table

    def plot(self, **options: Any) -> Any:
        """Outcome against k, one line per group (a plotly figure); options as in ``interp.figures.confirmation_curve``."""
        return import_module("interp.figures").confirmation_curve(self, **options)

    def _repr_html_(self) -> str:
        return table_html(repr(self), self.tables["curve"])


def set_tables(sets: Sequence[HeadSet], values: np.ndarray, task: Task, positions: str, seed: int) -> dict[str, pd.DataFrame]:
    """``sets``, ``curve`` and ``prompts`` of one task and position; ``values`` [n_sets n_prompts] of sorted sets, the clean run first."""
    n, effects = values.shape[1], values - values[0]
    resamples = resample_prompts(n, seed, task.clusters)
    origin = {"task": task.name, "positions": positions}
    names = [" ".join(map(str, s.heads)) for s in sets]
    ids = pd.DataFrame([{**origin, **s._asdict(), "heads": heads} for s, heads in zip(sets, names, strict=True)])
    numbers = _columns(mean_interval(values, resamples), mean_interval(effects, resamples), resamples)
    curve = []
    for (group, k), own in groupby(range(len(sets)), key=lambda i: (sets[i].group, sets[i].k)):
        draws = [*own]
        value, effect = (interval_over_draws(part[draws], resamples, seed) for part in (values, effects))
        n_sets = len({frozenset(sets[i].heads) for i in draws})
        curve.append(
            {**origin, "group": group, "k": k, "n_draws": len(draws), "n_sets": n_sets, **_columns(value, effect, resamples)}
        )
    prompts = ids.drop(columns="heads").loc[np.repeat(np.arange(len(sets)), n)].reset_index(drop=True)
    prompts["example"] = np.tile(np.arange(n, dtype="int32"), len(sets))
    prompts["depth"] = np.tile([_depth(example) for example in task], len(sets))
    prompts["value"], prompts["baseline"] = values.ravel(), np.tile(values[0], len(sets))
    return {"sets": ids.assign(**numbers), "curve": pd.DataFrame(curve), "prompts": prompts}


def interval_over_draws(values: np.ndarray, resamples: Resamples, seed: int) -> Interval:
    """Mean of ``values`` [n_draws n_prompts] with its interval over draws and prompts; of a single draw, over prompts."""
    n_draws, weights = len(values), resamples.weights
    if n_draws == 1:
        return mean_interval(values, resamples)
    shares = draw_weights(np.random.default_rng([seed, 6]), n_draws, len(weights))
    low, high = np.quantile((shares * (weights @ values.T)).sum(1), expanded_levels(min(n_draws, resamples.n_units)))
    return Interval(*(np.array([number]) for number in (values.mean(), low, high)))


def _columns(value: Interval, effect: Interval, resamples: Resamples) -> dict[str, Any]:
    columns = {"value": value.mean, "ci_low": value.low, "ci_high": value.high}
    columns |= {"effect": effect.mean, "effect_ci_low": effect.low, "effect_ci_high": effect.high}
    return {**{name: part if len(part) > 1 else float(part[0]) for name, part in columns.items()}, **resamples.sizes}


def _depth(example: Example) -> float:
    """The share of the prompt before the answer; NaN where no mark gives its position."""
    start = next((example.marks[name][0] for name in ANSWER_MARKS if name in example.marks), np.nan)
    return start / len(example.clean)
