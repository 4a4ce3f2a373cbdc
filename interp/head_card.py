"""Everything known about one head in one place: its roles, its numbers, what it changed, and where it looks.

A card gathers and computes little: detections that were made, the ``heads`` tables of stored runs, and one pass over a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp._short_repr import short_repr
from interp.ablation.effect_tables import NO_HEAD
from interp.detectors.support.detection import Detection
from interp.heads import Head

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.attention.attention_observer import Observation
    from interp.models.model import Model

METRICS = ("attention_distance", "entropy", "self_attention_score", "prev_token_score", "sink_share:from_row=4")
RECEIVED = "received_attention"
LEAST_ROWS = 4
"""Tokens that fewer rows see are not called attended: the last one is seen by itself alone."""

N_ATTENDED = 5

COLUMNS = "kind name value unit rank of detected threshold control literature_threshold ci_low ci_high source".split()
ATTENDED = "pos token weight".split()


@short_repr
@dataclass(frozen=True, eq=False)
class HeadCard:
    """What is known about a head.

    ``table`` has one row a number: ``kind`` (``role``, ``part`` of a role's detection, ``metric`` of attention, ``effect`` of taking the
    head out), ``name value unit``, ``rank`` among ``of`` heads (1 = highest value, of effects the largest; 0 where there is no number), for
    roles ``detected threshold control literature_threshold``, for effects the interval ``ci_low ci_high``, and ``source``, what it was
    measured on;
    NaN where a column says nothing. ``attended`` has the tokens of the first text that receive most of the head's attention: ``pos token
    weight`` (mean over the rows that see the token). ``sharing`` are the other query heads that use its keys and values.
    """

    head: Head
    kv_head: int
    sharing: tuple[Head, ...]
    model: str
    table: pd.DataFrame
    attended: pd.DataFrame

    @property
    def roles(self) -> list[str]:
        """The roles that the head was found to play."""
        return self.table.loc[self.table["detected"], "name"].tolist()

    def to_dataframe(self) -> pd.DataFrame:
        """``table``."""
        return self.table

    def _repr_html_(self) -> str:
        from html import escape

        shared = f", keys and values shared with {', '.join(map(str, self.sharing))}" if self.sharing else ""
        said = f"{', '.join(self.roles) or 'no role found'}; key/value head {self.kv_head}{shared}"
        parts = [f"<p><b>{self.head}</b> of {escape(self.model)}: {escape(said)}</p>"]
        tables = (self.table.dropna(axis="columns", how="all"), self.attended)
        return "".join(parts + [t.to_html(index=False, na_rep="", float_format="{:.3f}".format) for t in tables if len(t)])


def head_card(
    model: Model,
    head: Head | str,
    detections: Sequence[Detection] | None = None,
    *,
    tables: Sequence[pd.DataFrame] = (),
    prompts: Any = None,
) -> HeadCard:
    """The card of one head (``L5H1``); arguments and errors as in ``head_cards``, and LookupError for a head that is not there."""
    chosen = model.facts.check_head(Head.parse(head) if isinstance(head, str) else head)
    return head_cards(model, detections, tables=tables, prompts=prompts)[chosen]


def head_cards(
    model: Model,
    detections: Sequence[Detection] | None = None,
    *,
    tables: Sequence[pd.DataFrame] = (),
    prompts: Any = None,
) -> dict[Head, HeadCard]:
    """The cards of all heads, which cost no more than one.

    Without ``detections`` the quick detectors run with their own settings. ``tables`` are the ``heads`` tables of stored runs of this model
    (ablations or observations); ``prompts`` is a text, token ids or a task to read metrics and attended tokens on. Raises what the
    detectors raise.
    """
    if detections is None:
        from interp.detectors import detect, quick_detectors

        made = (detect(model, role) for role in quick_detectors())
        detections = [found for found in made if isinstance(found, Detection)]
    facts, observation = model.facts, None if prompts is None else _observe(model, prompts)
    parts = [rows for found in detections for rows in _of_role(found)]
    if observation is not None:
        scores = [observation.heads(name.split(":")[0]) for name in METRICS]
        parts += [_rows(s.to_dataframe(), "value", "metric", s.record.metric, "the prompts") for s in scores]
    parts += [rows for table in tables for rows in _of_run(table)]
    known, attended = _by_head(_card_table(parts)), _by_head(_attended(observation))
    nothing = _card_table([]).drop(columns=["layer", "head"]), _attended(None).drop(columns=["layer", "head"])
    together: dict[tuple[int, int], list[Head]] = {}
    for head in facts.heads():
        together.setdefault((head.layer, facts.kv_head(head)), []).append(head)
    cards = {}
    for (_, group), heads in together.items():
        for head in heads:
            sharing = tuple(other for other in heads if other != head)
            table, tokens = known.get(head, nothing[0]), attended.get(head, nothing[1])
            cards[head] = HeadCard(head, group, sharing, facts.name, table, tokens)
    return dict(sorted(cards.items()))


def _observe(model: Model, prompts: Any) -> Observation:
    from interp.metrics import observe_attention

    return observe_attention(model, prompts, [*METRICS, f"{RECEIVED}:min_rows={LEAST_ROWS}"])


def _of_role(found: Detection) -> Iterator[pd.DataFrame]:
    decided = {"detected": found.scores.values.ravel() > found.threshold, "threshold": found.threshold}
    decided |= {"control": found.control.values.ravel().astype("float64"), "literature_threshold": found.literature_threshold}
    source = found.record.task
    yield _rows(found.scores.to_dataframe(), "value", "role", found.role, source).assign(**decided)
    for name, part in found.extra_scores.items():
        yield _rows(part.to_dataframe(), "value", "part", f"{found.role}: {name}", source)


def _of_run(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The numbers of a stored run, without those of pairs of heads."""
    single = table.loc[table["layer2"] == NO_HEAD] if "layer2" in table else table
    for metric, rows in single.groupby("metric", sort=False):
        if "effect" not in rows:
            yield _rows(rows, "value", "metric", str(metric), "stored run")
            continue
        name, source = (
            f"{rows['ablation'].iloc[0]} ablation on {metric}",
            f"{rows['task'].iloc[0]}, positions {rows['positions'].iloc[0]}",
        )
        yield _rows(rows, "effect", "effect", name, source, ci_low=rows["ci_low"], ci_high=rows["ci_high"])


def _rows(table: pd.DataFrame, column: str, kind: str, name: str, source: str, **more: Any) -> pd.DataFrame:
    """The rows of one number, from a table ``layer head unit`` and the column that holds it."""
    values = table[column].astype("float64")
    size = values.abs() if kind == "effect" else values
    rank = size.rank(method="min", ascending=False).fillna(0).astype("int32")
    rows = table[["layer", "head"]].assign(kind=kind, name=name, value=values, unit=table["unit"], rank=rank, of=values.count())
    return rows.assign(source=source, **more)


def _card_table(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    joined = pd.concat([*parts, pd.DataFrame(columns=["layer", "head"])], ignore_index=True).reindex(
        columns=["layer", "head", *COLUMNS]
    )
    kinds = dict.fromkeys(("value", "threshold", "control", "literature_threshold", "ci_low", "ci_high"), "float64")
    kinds |= dict.fromkeys(("layer", "head", "rank", "of"), "int32")
    return joined.assign(detected=joined["detected"].eq(True)).astype(kinds)


def _attended(observation: Observation | None) -> pd.DataFrame:
    """The tokens of the first text that receive most of each head's attention: ``layer head pos token weight``, most first."""
    import pandas as pd

    if observation is None:
        return pd.DataFrame(columns=["layer", "head", *ATTENDED])
    values = observation[RECEIVED][:, 0].nan_to_num(nan=-1.0)
    best = values.topk(min(N_ATTENDED, values.shape[-1]))
    weights, at = best.values.double().cpu().numpy().ravel(), best.indices.cpu().numpy()
    layers, heads, _ = np.indices(at.shape)
    table = pd.DataFrame({"layer": layers.ravel(), "head": heads.ravel(), "pos": at.ravel()})
    return table.assign(token=[observation.words[0][pos] for pos in table["pos"]], weight=weights).query("weight >= 0")


def _by_head(table: pd.DataFrame) -> dict[Head, pd.DataFrame]:
    """The rows of each head, without the columns that say which it is."""
    rows = table.drop(columns=["layer", "head"])
    heads = table[["layer", "head"]].groupby(["layer", "head"], sort=False).groups
    return {Head(*map(int, at)): rows.loc[where].reset_index(drop=True) for at, where in heads.items()}  # type: ignore[misc]
