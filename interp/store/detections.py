"""Detections as run directories, written and read back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from interp.detectors import Detection, TokenDetection
from interp.files import sha256
from interp.heads import Head, HeadScores, TokenScores
from interp.models.model import ModelFacts
from interp.records import RunRecord
from interp.store.manifest import reading
from interp.store.run_directory import RunWriter, StoredRun, open_run, write_once
from interp.store.scores import head_rows, metric_facts, token_rows

DECISION = ("fwer", "literature_threshold")


def save_detection(
    detection: Detection | TokenDetection, facts: ModelFacts, folder: str | Path, spec: dict[str, Any] | None = None
) -> StoredRun:
    """Writes a detection to a run directory and returns the run; ``load_detection`` reads it back.

    For heads, the table ``heads`` has one row per head and metric: ``score``, ``control``, ``threshold`` and each of ``extra_scores``,
    which ``StoredRun.scores`` reads by these names. For tokens, ``tokens`` has one row per token and score, and ``masks.safetensors``
    the selected tokens. Without ``spec`` record and values identify the run. Raises as ``start_run``.
    """
    if spec is None:
        digests = {name: sha256(part.values.astype("float64").tobytes()) for name, part in _scores(detection).items()}
        spec = {"kind": "detection", "role": detection.role, "record": detection.record.to_json(), "values": digests}
    return write_once(folder, spec, lambda writer: write_detection(writer, detection, facts))


def load_detection(path: str | Path) -> Detection | TokenDetection:
    """The detection that ``save_detection`` wrote here. Raises ArtefactInvalid for a run of another kind or a damaged one."""
    run = open_run(path, "detection")
    with reading(run.path):
        return _detection(run, run.manifest["details"]["detection"])


def _detection(run: StoredRun, details: dict[str, Any]) -> Detection | TokenDetection:
    role, prompts = details["role"], frozenset(details["prompts"])
    common = {"tables": load_tables(run, details), "details": details["details"], "prompts": prompts}
    if "heads.parquet" in run.manifest["files"]:
        scores = {name: _with_record(run, name, run.scores(name)) for name in run.metrics}
        score, control, threshold = (scores.pop(name) for name in ("score", "control", "threshold"))
        decision = {name: details[name] for name in DECISION}
        return Detection(role, score, control, threshold.values, **decision, extra_scores=scores, **common)
    tokens = {name: _with_record(run, name, run.token_scores(name)) for name in run.metrics}
    heads = {name: tuple(map(Head.parse, labels)) for name, labels in details["heads"].items()}
    masks = run.arrays("masks")
    return TokenDetection(role, tokens, {name: masks[name] for name in details["masks"]}, heads, **common)


def _scores(detection: Detection | TokenDetection) -> dict[str, Any]:
    """All scores of a detection by the name of their column."""
    if isinstance(detection, TokenDetection):
        return dict(detection.scores)
    thresholds = replace(detection.scores, name="threshold", values=detection.threshold, bounds=(None, None))
    return {"score": detection.scores, "control": detection.control, "threshold": thresholds, **detection.extra_scores}


def write_detection(writer: RunWriter, detection: Detection | TokenDetection, facts: ModelFacts) -> StoredRun:
    """Writes the tables of a detection, as ``save_detection`` says, and finishes the run."""
    scores = _scores(detection)
    if isinstance(detection, Detection):
        writer.write_table("heads", head_rows(scores, facts))
        details: dict[str, Any] = {name: getattr(detection, name) for name in DECISION}
    else:
        writer.write_table("tokens", token_rows(scores))
        writer.write_arrays("masks", detection.masks)
        groups = {name: [str(head) for head in heads] for name, heads in detection.heads.items()}
        details = {"heads": groups, "masks": [*detection.masks]}
    details |= {"role": detection.role, "details": detection.details, "prompts": sorted(detection.prompts)}
    details["tables"] = write_tables(writer, detection.tables)
    metrics = {name: _score_facts(part, detection.record) for name, part in scores.items()}
    shape = [facts.n_layers, facts.n_heads]
    return writer.finish(detection.record, kind="detection", shape=shape, metrics=metrics, detection=details)


def _score_facts(scores: HeadScores | TokenScores, record: RunRecord) -> dict[str, Any]:
    """Everything about a score but its values; its record only where it is more than another metric of the same run."""
    facts = metric_facts(scores.record.metric, scores.unit, scores.bounds, scores.nan_reason)
    if isinstance(scores, TokenScores):
        facts |= {"axis": "key", "example": list(scores.example)}
    if scores.record != replace(record, metric=scores.record.metric):
        facts["record"] = scores.record.to_json()
    return {**facts, "title": scores.name}


def _with_record(run: StoredRun, name: str, scores: Any) -> Any:
    facts = run.metrics[name]
    record = RunRecord.from_json(facts["record"]) if "record" in facts else scores.record
    example = {"example": tuple(facts["example"])} if "example" in facts else {}
    return replace(scores, name=facts["title"], record=record, **example)


def write_tables(writer: RunWriter, tables: Mapping[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Writes the tables that have rows; returns the columns of each, from which an empty one is made again."""
    for name, table in tables.items():
        if not table.empty:
            writer.write_table(name, table)
    return {name: [str(column) for column in table.columns] for name, table in tables.items()}


def load_tables(run: StoredRun, details: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    files, columns_of = run.manifest["files"], details["tables"]
    return {n: run.table(n) if f"{n}.parquet" in files else pd.DataFrame(columns=columns) for n, columns in columns_of.items()}
