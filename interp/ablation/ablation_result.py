"""What ``ablate_heads`` returns: the outcome with each head ablated, for every example, and the tables, scores and figures made of it.

The sign of an effect is that of ``effect_tables``. All statistics are seeded with the record's seed.
"""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp._short_repr import table_html
from interp.ablation.effect_tables import effect_columns, head_columns, head_scores
from interp.engine.sweep.sweep import SweepResult
from interp.heads import Head, HeadScores
from interp.models.model import ModelFacts
from interp.records import prompts_text


@dataclass(frozen=True, eq=False, repr=False)
class AblationResult(SweepResult):
    """A sweep over heads, with the sizes of the model.

    ``estimator`` is ``exact``, ``attribution`` or ``adaptive``; for ``adaptive``, ``estimate`` is the gradient estimate of all heads that
    selected the ones measured exactly. The other fields are those of ``SweepResult``.
    """

    _: KW_ONLY
    n_layers: int
    n_heads: int
    n_kv_heads: int
    estimator: str = "exact"
    estimate: "AblationResult | None" = None

    @classmethod
    def of(
        cls, sweep: SweepResult, facts: ModelFacts, estimator: str = "exact", estimate: "AblationResult | None" = None
    ) -> "AblationResult":
        """The result of a sweep over heads of the model with these ``facts``."""
        sizes = {name: getattr(facts, name) for name in ("n_layers", "n_heads", "n_kv_heads")}
        return cls(**vars(sweep), **sizes, estimator=estimator, estimate=estimate)

    def heads(self) -> pd.DataFrame:
        """One row per head (or pair of heads), in the order of the sweep.

        Columns: ``layer head kv_head label``; ``effect`` (mean over ``n`` prompts, in ``unit``) with its 95% interval ``ci_low ci_high``,
        ``p_value``, ``q_value`` and ``sign_consistency`` (share of prompts whose effect has the sign of the mean); ``n_clusters`` where the
        prompts are in clusters, over which intervals and p-values then are; ``baseline`` and ``value`` (mean outcome before and after);
        ``control`` and ``layer_control`` with their intervals (mean effect of the other heads; NaN where there are none);
        ``exceeds_control`` and ``exceeds_layer_control``; and the provenance. Pairs add ``layer2 head2 kv_head2`` and ``interaction``
        (effect of both - effect of one - effect of the other; negative = each compensates for the other) with its interval. Heads and pairs
        are two families: each is corrected and compared within itself.

        Raises ValueError when effects are missing, not finite, or the same everywhere.
        """
        return self._heads.copy()

    def examples(self) -> pd.DataFrame:
        """One row per head (or pair) and example: ``value`` (outcome of the ablated run), ``baseline`` (of the clean run), ``effect``."""
        n_variants, n = self.values.shape
        columns = {name: np.repeat(np.asarray(column), n) for name, column in self._head_columns.items()}
        columns |= {"example": np.tile(np.arange(n, dtype="int32"), n_variants), "value": self.values.ravel()}
        columns |= {"baseline": np.tile(self.baseline, n_variants), "effect": self.effects.ravel()}
        return pd.DataFrame(columns | self._provenance)

    def to_dataframe(self) -> pd.DataFrame:
        """``heads()``."""
        return self.heads()

    def scores(self, column: str = "effect") -> HeadScores:
        """A numeric column of ``heads()`` as one number per head, without the pairs. Raises LookupError for any other column."""
        return head_scores(self._heads, self.record, (self.n_layers, self.n_heads), column)

    def top(self, k: int, *, by: str = "magnitude") -> list[Head]:
        """The ``k`` heads with the largest effects, in order; ``by`` is ``magnitude``, ``highest`` or ``lowest``."""
        return self.scores().top(k, by=by)

    def plot(self, **options: Any) -> Any:
        """Layer x head heat map of the effects (a plotly figure); options as in ``interp.figures.head_map``."""
        return import_module("interp.figures").head_map(self.heads(), shape=(self.n_layers, self.n_heads), **options)

    def save(self, folder: str | Path) -> Path:
        """Writes the tables and the record to a run directory, which ``interp show`` opens, and returns its path."""
        return import_module("interp.store").save_ablation(self, folder)

    def __repr__(self) -> str:
        record, estimator = self.record, "" if self.estimator == "exact" else f", {self.estimator}"
        what = (
            f"{len(self.variants)} x {self.ablation} ablation{estimator}, {prompts_text(len(self.baseline), record.n_clusters)}"
        )
        return f"AblationResult({record.model} on {record.task}: {what}, {self.metric})"

    def _repr_html_(self) -> str:
        ranking = self._heads.sort_values("effect", key=abs, ascending=False, kind="stable")
        columns = ["label", "effect", "ci_low", "ci_high", "q_value", "control", "exceeds_control"]
        return table_html(repr(self), ranking[columns])

    @cached_property
    def _heads(self) -> pd.DataFrame:
        return pd.DataFrame({**self._head_columns, **effect_columns(self, self.record.seed), **self._provenance})

    @property
    def _head_columns(self) -> dict[str, Any]:
        return head_columns(self.variants, self.n_heads // self.n_kv_heads)

    @property
    def _provenance(self) -> dict[str, Any]:
        """How the numbers were made, the same in every row."""
        made = {name: getattr(self, name) for name in ("metric", "unit", "ablation", "estimator", "positions")}
        return made | {name: getattr(self.record, name) for name in ("task", "model", "revision", "seed")}
