"""The result of a detector: a score per head or token, the calibrated threshold and the scores under the null.

Rank first, then decide: ``top(k)`` needs no threshold. ``detected`` lists the heads above their ``threshold``, calibrated on the
same model and prompts (``null_threshold``): more than chance, which may still be little. ``literature_threshold`` is the papers'
constant, if any, the same for every head; it misses diffuse attention.
"""

from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from interp._short_repr import short_repr
from interp.heads import Head, HeadScores, TokenScores
from interp.records import RunRecord

Scores = TypeVar("Scores", HeadScores, TokenScores)


@short_repr
@dataclass(frozen=True, eq=False)
class Detection:
    """Heads that play a role."""

    role: str
    scores: HeadScores
    """Ranks the heads; the highest play the role."""
    control: HeadScores
    """The same score under the null, mean over null draws."""
    threshold: Float[np.ndarray, "n_layers n_heads"]
    """Of each head; heads above theirs are detected."""
    fwer: float
    """Family-wise error rate: the share of models without the role in which at least one head exceeds its ``threshold``."""
    literature_threshold: float | None = None
    extra_scores: dict[str, HeadScores] = field(default_factory=dict)
    """Further scores of every head, by name."""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """Counts and settings, as JSON values."""
    prompts: frozenset[str] = frozenset()
    """Digests of the prompts used for detection, so that none of them is used for confirmation."""

    def __post_init__(self) -> None:
        shape = self.scores.values.shape
        if np.shape(self.threshold) != shape:
            raise ValueError(
                f"threshold has shape {np.shape(self.threshold)}: give one for each head, {shape}, where one number is to hold for all "
                f"np.full({shape}, 0.5)."
            )

    @property
    def record(self) -> RunRecord:
        return self.scores.record

    @property
    def above_threshold(self) -> Bool[np.ndarray, "n_layers n_heads"]:
        """Whether the score of each head exceeds its threshold; False without a score."""
        return self.scores.values > self.threshold

    @property
    def detected(self) -> list[Head]:
        """The heads whose score exceeds their threshold, highest score first."""
        return self._ranked(self.above_threshold)

    @property
    def above_literature(self) -> list[Head] | None:
        """The heads whose score exceeds the constant of the literature, highest first; None where there is no constant."""
        if self.literature_threshold is None:
            return None
        return self._ranked(self.scores.values > self.literature_threshold)

    def _ranked(self, chosen: Bool[np.ndarray, "n_layers n_heads"]) -> list[Head]:
        return [head for head in self.top(chosen.size) if chosen[head]]

    def decision(self) -> str:
        """One sentence: how many heads exceed their thresholds, how many that of the literature, and how many both."""
        detected, above = self.detected, self.above_literature
        finite = self.threshold[np.isfinite(self.threshold)]
        low, high = (finite.min(), finite.max()) if len(finite) else (np.inf, np.inf)
        limits = (
            f"their calibrated thresholds, {low:.3g} to {high:.3g}" if low < high else f"the calibrated threshold {low:.3g}"
        )
        chance = f"nominally {self.fwer:.0%} of models without the role have any such head"
        sentence = f"{len(detected)} of {self.scores.values.size:,} heads above {limits} ({chance})"
        if above is not None:
            usual = f"{self.literature_threshold:g}, the usual threshold in the literature"
            sentence += f"; {len(above)} above {usual}; {len({*detected} & {*above})} above both"
        most = self.scores.bounds[1]
        if most is not None and (n := int((self.threshold >= most).sum())):
            sentence += f"; {n} cannot be detected, since {'its' if n == 1 else 'their'} null scores vary too much"
        return sentence

    def top(self, k: int) -> list[Head]:
        """The ``k`` heads with the highest scores, in order; heads without a score are never returned."""
        return self.scores.top(k, by="highest")

    def to_dataframe(self) -> pd.DataFrame:
        """One row per head, highest score first.

        Columns: ``layer head label role metric unit score control threshold detected literature_threshold`` (NaN without a
        constant in the literature) and one for each of ``extra_scores``.
        """
        table = self.scores.to_dataframe().drop(columns=["metric", "value", "unit"])
        table["role"], table["metric"], table["unit"] = self.role, self.scores.name, self.scores.unit
        table["score"], table["control"] = _column(self.scores), _column(self.control)
        table["threshold"] = self.threshold.ravel()
        table["detected"] = self.above_threshold.ravel()
        table["literature_threshold"] = np.nan if self.literature_threshold is None else self.literature_threshold
        for name, scores in self.extra_scores.items():
            table[name] = _column(scores)
        return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)

    def plot(self, **options: Any) -> Any:
        """Layer x head map of the scores with the detected heads outlined; options as in ``interp.figures.detection_map``."""
        return import_module("interp.figures").detection_map(self, **options)

    def _repr_html_(self) -> str:
        return self.to_dataframe().head(20).to_html(index=False, float_format="{:.3f}".format)


@short_repr
@dataclass(frozen=True, eq=False)
class TokenDetection:
    """Tokens that play a role; fields not described here are those of ``Detection``."""

    role: str
    scores: dict[str, TokenScores]
    masks: dict[str, np.ndarray]
    """The tokens of each kind as True, [batch pos]."""
    heads: dict[str, tuple[Head, ...]]
    """The groups of heads that the scores were read from."""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """``statistics`` compares the tokens with the null: ``statistic null observed expected null_low null_high p_value n``."""
    details: dict[str, Any] = field(default_factory=dict)
    prompts: frozenset[str] = frozenset()

    @property
    def record(self) -> RunRecord:
        return next(iter(self.scores.values())).record

    @property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The tokens of every text as strings."""
        return next(iter(self.scores.values())).tokens

    def to_dataframe(self) -> pd.DataFrame:
        """One row per token: ``example pos token``, one column per score and one boolean column per mask."""
        table = next(iter(self.scores.values())).to_dataframe().drop(columns=["metric", "value", "unit"])
        for name, scores in self.scores.items():
            table[name] = _column(scores)
        for name, mask in self.masks.items():
            table[name] = mask.ravel()
        return table

    def _repr_html_(self) -> str:
        return self.to_dataframe().to_html(index=False, max_rows=60, float_format="{:.3f}".format)


def name_records(found: Detection | TokenDetection) -> Detection | TokenDetection:
    """The same detection with its role as the task of all records that name none."""

    def named(scores: Scores) -> Scores:
        return scores if scores.record.task else replace(scores, record=replace(scores.record, task=found.role))

    if isinstance(found, TokenDetection):
        return replace(found, scores={name: named(scores) for name, scores in found.scores.items()})
    extra = {name: named(scores) for name, scores in found.extra_scores.items()}
    return replace(found, scores=named(found.scores), control=named(found.control), extra_scores=extra)


def _column(scores: HeadScores | TokenScores) -> np.ndarray:
    return scores.values.ravel().astype("float64")
