"""What a detector found: a number for each head or token, where the decision falls, and what chance would give.

Rank first, then decide: ``top(k)`` needs no threshold. ``found`` takes the heads above ``threshold``, which comes from the same model
and prompts by draws of what chance would give (``calibration``); ``literature`` is the constant that a paper uses, if one
does, and loses heads whose attention is soft.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.heads import Head, HeadScores, TokenScores
from interp.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Detection:
    """Heads that play a role.

    ``scores`` is what heads are ranked by; ``control`` the same number by chance (mean over the draws). In a share ``rate``
    of models without the role at least one head lies above ``threshold``. ``parts`` are further numbers a head, by name; ``tables``
    whatever else was measured, such as every trial; ``details`` what a reader must know beside (counts, settings), as JSON values.
    ``prompts`` are digests of the texts that the heads were found on, so that none of them is used to confirm.
    """

    role: str
    scores: HeadScores
    control: HeadScores
    threshold: float
    rate: float
    literature: float | None = None
    parts: dict[str, HeadScores] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    prompts: frozenset[str] = frozenset()

    @property
    def record(self) -> RunRecord:
        return self.scores.record

    @property
    def found(self) -> list[Head]:
        """The heads whose score lies above the threshold, highest first."""
        return [head for head in self.top(self.scores.values.size) if self.scores[head] > self.threshold]

    def top(self, k: int) -> list[Head]:
        """The ``k`` heads with the highest scores, in order; heads without a number are never returned."""
        return self.scores.top(k, by="highest")

    def to_dataframe(self) -> pd.DataFrame:
        """One row a head, highest score first: ``layer head label role score control threshold found literature`` (NaN where no paper
        has a constant) and one column for each of ``parts``; ``metric`` and ``unit`` are those of the score."""
        import pandas as pd

        layers, heads = (part.ravel().astype("int32") for part in np.indices(self.scores.values.shape))
        score = self.scores.values.ravel().astype("float64")
        table = pd.DataFrame({"layer": layers, "head": heads})
        table["label"] = [str(Head(*pair)) for pair in zip(layers.tolist(), heads.tolist(), strict=True)]
        table["role"], table["metric"], table["unit"] = self.role, self.scores.name, self.scores.unit
        table["score"], table["control"] = score, self.control.values.ravel().astype("float64")
        table["threshold"], table["found"] = self.threshold, score > self.threshold
        table["literature"] = np.nan if self.literature is None else self.literature
        for name, part in self.parts.items():
            table[name] = part.values.ravel().astype("float64")
        return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)

    def plot(self, **options: Any) -> Any:
        """Layer x head map of the scores with the decision drawn in; options as in ``interp.figures.detection_map``."""
        from importlib import import_module

        return import_module("interp.figures").detection_map(self, **options)

    def _repr_html_(self) -> str:
        return self.to_dataframe().head(20).to_html(index=False, float_format="{:.3f}".format)


@dataclass(frozen=True, eq=False)
class TokenDetection:
    """Tokens that play a role.

    ``scores`` by name; ``chosen`` by name, True for the tokens that were chosen, [batch pos]; ``heads`` the groups of heads that the
    numbers were read from. ``tables["statistics"]`` holds what is said of them beside chance: ``statistic observed expected low high
    p_value n``, and how chance was made (``against``). The rest as in ``Detection``.
    """

    role: str
    scores: dict[str, TokenScores]
    chosen: dict[str, np.ndarray]
    heads: dict[str, tuple[Head, ...]]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    prompts: frozenset[str] = frozenset()

    @property
    def record(self) -> RunRecord:
        return next(iter(self.scores.values())).record

    @property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The tokens as text, by text."""
        return next(iter(self.scores.values())).tokens

    def to_dataframe(self) -> pd.DataFrame:
        """One row a token: ``example pos token``, one column of numbers for each score and one of True and False for each choice."""
        import pandas as pd

        words = self.words
        batch, pos = (part.ravel().astype("int32") for part in np.indices((len(words), len(words[0]))))
        table = pd.DataFrame({"example": batch, "pos": pos, "token": [word for text in words for word in text]})
        for name, scores in self.scores.items():
            table[name] = scores.values.ravel().astype("float64")
        for name, marks in self.chosen.items():
            table[name] = marks.ravel()
        return table

    def _repr_html_(self) -> str:
        return self.to_dataframe().to_html(index=False, max_rows=60, float_format="{:.3f}".format)
