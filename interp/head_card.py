"""Everything measured of one head: roles, attention metrics, ablation effects and the tokens it attends to most.

A card collects existing results - detections, the ``heads`` tables of stored runs - and adds one pass over the given prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from interp._short_repr import short_repr
from interp.ablation.effect_tables import NO_HEAD
from interp.detectors import detect, quick_detectors
from interp.detectors.support.detection import Detection
from interp.engine.attention.attention_observer import Observation
from interp.errors import first_line
from interp.heads import Head
from interp.metrics import observe_attention
from interp.models.model import Model

METRICS = ("attention_distance", "entropy", "self_attention_score", "prev_token_score", "sink_mass:from_row=4")
RECEIVED = "received_attention"
MIN_ROWS = 4
"""Tokens visible to fewer attention rows are ignored: the last token is visible only to itself."""

N_ATTENDED = 5

POSITION = ["layer", "head"]
FLOATS = ("value", "threshold", "control", "literature_threshold", "ci_low", "ci_high")
COLUMNS = ("kind", "name", "value", "unit", "rank", "n_ranked", "detected", *FLOATS[1:], "measured_on")
INTEGERS = (*POSITION, "rank", "n_ranked")


@short_repr
@dataclass(frozen=True, eq=False)
class HeadCard:
    """What is known about a head.

    ``table`` has one row per number: ``kind`` (``role``, ``extra_score`` of a detection, ``metric`` of attention, ``effect`` of ablating
    the head), ``name value unit``, ``rank`` among ``n_ranked`` heads (1 = highest value, for effects largest magnitude; 0 without a
    value), ``measured_on``, for roles ``detected threshold control literature_threshold``, and for effects the 95% interval ``ci_low
    ci_high``; other cells are NaN. ``attended_tokens`` has the tokens of the first prompt that receive most of the head's attention:
    ``pos token weight`` (mean over the rows to which the token is visible). ``sharing``: the other query heads of its key/value head.
    ``not_measured`` says by role why a quick detector has no number here.
    """

    head: Head
    kv_head: int
    sharing: tuple[Head, ...]
    model: str
    table: pd.DataFrame
    attended_tokens: pd.DataFrame
    not_measured: Mapping[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> list[str]:
        """The roles that the head was detected to play."""
        return self.table.loc[self.table["detected"], "name"].tolist()

    def to_dataframe(self) -> pd.DataFrame:
        """``table``."""
        return self.table

    def _repr_html_(self) -> str:
        shared = f", keys and values shared with {', '.join(map(str, self.sharing))}" if self.sharing else ""
        summary = f"{', '.join(self.roles) or 'no role detected'}; key/value head {self.kv_head}{shared}"
        title = f"<p><b>{self.head}</b> of {escape(self.model)}: {escape(summary)}</p>"
        tables = (table for table in (self.table.dropna(axis="columns", how="all"), self.attended_tokens) if len(table))
        shown = "".join(t.to_html(index=False, na_rep="", float_format="{:.3f}".format) for t in tables)
        return title + shown + "".join(f"<p>{escape(f'{role}: {why}')}</p>" for role, why in self.not_measured.items())


def head_card(
    model: Model,
    head: Head | str,
    detections: Sequence[Detection] | None = None,
    *,
    tables: Sequence[pd.DataFrame] = (),
    prompts: Any = None,
) -> HeadCard:
    """The card of one head, given as ``Head`` or ``L5H1``; as ``head_cards``, and raises LookupError for a head out of range."""
    chosen = model.facts.check_head(Head.parse(head) if isinstance(head, str) else head)
    return head_cards(model, detections, tables=tables, prompts=prompts)[chosen]


def head_cards(
    model: Model, detections: Sequence[Detection] | None = None, *, tables: Sequence[pd.DataFrame] = (), prompts: Any = None
) -> dict[Head, HeadCard]:
    """The cards of all heads, at the cost of one.

    Without ``detections``, the quick detectors run with their default settings; those that do not apply to the model, or fail, as one of
    another package may, are named in the cards. ``tables`` are ``heads`` tables of ablations or
    observations of this model; ``prompts`` (text, token ids or a task) is what attention metrics and attended tokens are measured on.
    """
    found = {} if detections is not None else {role: detection_or_reason(model, role) for role in quick_detectors()}
    not_measured = {role: result for role, result in found.items() if isinstance(result, str)}
    detections = detections or [result for result in found.values() if isinstance(result, Detection)]
    facts, observation = model.facts, None
    rows = [part for detection in detections for part in _detection_rows(detection)]
    if prompts is not None:
        observation = observe_attention(model, prompts, [*METRICS, f"{RECEIVED}:min_rows={MIN_ROWS}"])
        scores = [observation.heads(name.split(":")[0]) for name in METRICS]
        rows += [_rows(s.to_dataframe(), "value", "metric", s.record.metric, "the prompts") for s in scores]
    rows += [part for table in tables for part in _run_rows(table)]
    heads = facts.heads()
    by_head, attended = _split_by_head(_card_table(rows), heads), _split_by_head(_attended_tokens(observation), heads)
    cards = {}
    for head in heads:
        kv_head = facts.kv_head(head)
        sharing = tuple(h for h in heads if h.layer == head.layer and h != head and facts.kv_head(h) == kv_head)
        cards[head] = HeadCard(head, kv_head, sharing, facts.name, by_head[head], attended[head], not_measured)
    return cards


def detection_or_reason(model: Model, role: str) -> Detection | str:
    """The detection of heads with the default settings of its detector; where that does not apply to the model, or fails, the reason."""
    try:
        found = detect(model, role)
    except ValueError as error:
        return str(error)
    except MemoryError:
        raise
    except Exception as error:  # a detector of another package, which must not hide the others
        return f"the detector failed ({type(error).__name__}: {first_line(error)})."
    return found if isinstance(found, Detection) else "the detector finds tokens, not heads."


def _detection_rows(detection: Detection) -> Iterator[pd.DataFrame]:
    role, task, scores = detection.role, detection.record.task, detection.scores
    decision: dict[str, Any] = {"detected": detection.above_threshold.ravel(), "threshold": detection.threshold.ravel()}
    decision["control"] = detection.control.values.ravel().astype("float64")
    decision["literature_threshold"] = detection.literature_threshold
    yield _rows(scores.to_dataframe(), "value", "role", role, task).assign(**decision)
    for name, extra in detection.extra_scores.items():
        yield _rows(extra.to_dataframe(), "value", "extra_score", f"{role}: {name}", task)


def _run_rows(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of a stored ``heads`` table, without pairs of heads."""
    single = table.loc[table["layer2"] == NO_HEAD] if "layer2" in table else table
    for metric, rows in single.groupby("metric", sort=False):
        if "effect" not in rows:
            yield _rows(rows, "value", "metric", str(metric), "stored run")
            continue
        first = rows.iloc[0]
        name, task = f"{first['ablation']} ablation on {metric}", f"{first['task']}, positions {first['positions']}"
        yield _rows(rows, "effect", "effect", name, task, ci_low=rows["ci_low"], ci_high=rows["ci_high"])


def _rows(table: pd.DataFrame, column: str, kind: str, name: str, measured_on: str, **columns: Any) -> pd.DataFrame:
    """The card rows of one number, from a table ``layer head unit`` and the ``column`` that holds it."""
    values = table[column].astype("float64")
    size = values.abs() if kind == "effect" else values
    rank = size.rank(method="min", ascending=False).fillna(0).astype("int32")
    rows = table[POSITION].assign(kind=kind, name=name, value=values, unit=table["unit"], rank=rank)
    return rows.assign(n_ranked=values.count(), measured_on=measured_on, **columns)


def _card_table(rows: list[pd.DataFrame]) -> pd.DataFrame:
    known = [table.dropna(axis="columns", how="all") for table in rows if len(table)]
    table = (pd.concat(known, ignore_index=True) if known else pd.DataFrame()).reindex(columns=[*POSITION, *COLUMNS])
    types = dict.fromkeys(FLOATS, "float64") | dict.fromkeys(INTEGERS, "int32")
    return table.assign(detected=table["detected"].eq(True)).astype(types)


def _attended_tokens(observation: Observation | None) -> pd.DataFrame:
    """The tokens of the first prompt that receive most of each head's attention: ``layer head pos token weight``, largest first."""
    if observation is None:
        return pd.DataFrame(columns=[*POSITION, "pos", "token", "weight"])
    values = observation[RECEIVED][:, 0].nan_to_num(nan=-1.0)
    largest = values.topk(min(N_ATTENDED, values.shape[-1]))
    weights, positions = largest.values.double().cpu().numpy().ravel(), largest.indices.cpu().numpy()
    layers, heads, _ = np.indices(positions.shape)
    table = pd.DataFrame({"layer": layers.ravel(), "head": heads.ravel(), "pos": positions.ravel()})
    return table.assign(token=[observation.words[0][pos] for pos in table["pos"]], weight=weights).query("weight >= 0")


def _split_by_head(table: pd.DataFrame, heads: Sequence[Head]) -> dict[Head, pd.DataFrame]:
    """The rows of each head, without the columns ``layer head``."""
    rows, indices = table.drop(columns=POSITION), table.groupby(POSITION).indices
    return {head: rows.iloc[indices.get(head, [])].reset_index(drop=True) for head in heads}
