"""Attention observations as run directories: one number per head, one per token, and every row and column."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.files import sha256
from interp.store.run_directory import RunWriter, StoredRun, write_once
from interp.store.scores import head_rows, metric_facts, token_rows

if TYPE_CHECKING:
    import numpy as np

    from interp.engine.attention.attention_observer import Observation
    from interp.models.model import ModelFacts
    from interp.records import RunRecord


def save_observation(
    observation: Observation, facts: ModelFacts, folder: str | Path, spec: dict[str, Any] | None = None
) -> StoredRun:
    """Writes an observation to a run directory and returns the run, whose ``scores`` and ``token_scores`` read it back.

    ``heads`` has one row per head and metric, ``tokens`` (for metrics with one number per token) one row per token and metric, the mean
    over all heads; metrics over other axes are in neither. ``values.safetensors`` holds every metric in full, [n_layers batch head
    axis]. Without ``spec`` the run is identified by its record and values. Raises ArtefactInvalid when the folder holds anything else.
    """
    record = replace(observation.record, metric=", ".join(metric.label for metric in observation.metrics.values()))
    arrays = {name: values.float().cpu().numpy() for name, values in observation.values.items()}
    if spec is None:
        digests = {name: sha256(values.tobytes()) for name, values in arrays.items()}
        spec = {"kind": "attention", "record": record.to_json(), "values": digests}
    return write_once(folder, spec, lambda writer: _write(writer, observation, facts, record, arrays))


def _write(
    writer: RunWriter, observation: Observation, facts: ModelFacts, record: RunRecord, arrays: dict[str, np.ndarray]
) -> StoredRun:
    metrics = observation.metrics.values()
    per_head = {m.name: observation.heads(m.name) for m in metrics if m.axis in ("query", "key", "text") or m.per_head}
    per_token = {m.name: observation.tokens(m.name) for m in metrics if m.axis in ("query", "key")}
    if per_head:
        writer.write_table("heads", head_rows(per_head, facts))
    if per_token:
        writer.write_table("tokens", token_rows(per_token, observation.prompts.token_mask.cpu().numpy().ravel()))
    writer.write_arrays("values", arrays)
    about = {
        m.name: {**metric_facts(m.label, m.unit, m.bounds, m.undefined), "axis": m.axis, "paper": m.paper} for m in metrics
    }
    return writer.finish(record, kind="attention", shape=[facts.n_layers, facts.n_heads], metrics=about)
