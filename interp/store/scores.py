"""Scores and attention observations as run directories, and the tables of scores that other runs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.files import sha256
from interp.heads import Head, HeadScores, TokenScores
from interp.store.run_directory import RunWriter, StoredRun, open_run, write_once

if TYPE_CHECKING:
    from interp.engine.attention.attention_observer import Observation
    from interp.models.model import ModelFacts


def save_scores(scores: HeadScores, folder: str | Path) -> Path:
    """Writes the scores to a run directory and returns its path; ``load_scores`` reads them back equal. Raises as ``start_run``."""
    facts = {"unit": scores.unit, "bounds": list(scores.bounds), "nan_reason": scores.nan_reason}
    identity = {"name": scores.name, "record": scores.record.to_json(), **facts}

    def write(writer: RunWriter) -> StoredRun:
        writer.write_table("heads", scores.to_dataframe())
        metrics = {scores.name: {"label": scores.record.metric, **facts}}
        return writer.finish(scores.record, kind="scores", shape=list(scores.values.shape), metrics=metrics)

    return write_once(folder, {"scores": identity, "values": sha256(scores.values.astype("float64").tobytes())}, write).path


def load_scores(folder: str | Path) -> HeadScores:
    """The scores of a run directory: those that ``save_scores`` wrote, or the effects of an ablation."""
    return open_run(folder).scores()


def save_observation(
    observation: Observation, facts: ModelFacts, folder: str | Path, spec: dict[str, Any] | None = None
) -> StoredRun:
    """Writes an observation to a run directory and returns the run, whose ``scores`` and ``token_scores`` read it back.

    ``heads`` has one row per head and metric, ``tokens`` (for metrics with one number per token) one row per token and metric, the mean
    over all heads; metrics over other axes are in neither. ``values.safetensors`` holds every metric in full, [n_layers batch head
    axis]. Without ``spec`` the run is identified by its record and values. Raises as ``start_run``.
    """
    metrics = observation.metrics.values()
    record = replace(observation.record, metric=", ".join(metric.label for metric in metrics))
    arrays = {name: values.float().cpu().numpy() for name, values in observation.values.items()}
    if spec is None:
        digests = {name: sha256(values.tobytes()) for name, values in arrays.items()}
        spec = {"kind": "attention", "record": record.to_json(), "values": digests}

    def write(writer: RunWriter) -> StoredRun:
        per_head = {m.name: observation.heads(m.name) for m in metrics if m.axis in ("query", "key", "text") or m.per_head}
        per_token = {m.name: observation.tokens(m.name) for m in metrics if m.axis in ("query", "key")}
        if per_head:
            writer.write_table("heads", head_rows(per_head, facts))
        if per_token:
            writer.write_table("tokens", token_rows(per_token, observation.prompts.token_mask.cpu().numpy().ravel()))
        writer.write_arrays("values", arrays)
        limits = {m.name: metric_facts(m.label, m.unit, m.bounds, observation.undefined(m.name)) for m in metrics}
        about = {m.name: {**limits[m.name], "axis": m.axis, "paper": m.paper} for m in metrics}
        more = {"overflows": True} if observation.overflows else {}
        return writer.finish(record, kind="attention", shape=[facts.n_layers, facts.n_heads], metrics=about, **more)

    return write_once(folder, spec, write)


def head_rows(scores: Mapping[str, HeadScores], facts: ModelFacts) -> pd.DataFrame:
    """One row per head and metric, with the key/value head that it reads."""
    table = pd.concat([part.to_dataframe().assign(metric=name) for name, part in scores.items()], ignore_index=True)
    heads = [Head(*pair) for pair in zip(table["layer"], table["head"], strict=True)]
    table.insert(2, "kv_head", pd.Series([facts.kv_head(head) for head in heads], dtype="int32"))
    return table


def token_rows(scores: Mapping[str, TokenScores], token_mask: Any = None) -> pd.DataFrame:
    """One row per token and metric; with ``token_mask`` (flat), only the tokens where it is True."""
    tables = [part.to_dataframe().assign(metric=name) for name, part in scores.items()]
    return pd.concat([table if token_mask is None else table.loc[token_mask] for table in tables], ignore_index=True)


def metric_facts(label: str, unit: str, bounds: Sequence[float | None], nan_reason: str) -> dict[str, Any]:
    """Everything about a metric but its values, as JSON values."""
    limits = [None if bound is None else float(bound) for bound in bounds]
    return {"label": label, "unit": unit, "bounds": limits, "nan_reason": nan_reason}
