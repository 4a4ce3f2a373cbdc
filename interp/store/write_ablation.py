"""The tables of an ablation, written to its run directory."""

from pathlib import Path
from typing import Any

from interp.ablation.ablation_result import AblationResult
from interp.ablation.effect_tables import agreement
from interp.files import sha256
from interp.store.run_directory import RunWriter, StoredRun, write_once


def save_ablation(result: AblationResult, folder: str | Path) -> Path:
    """Writes the result to a run directory of its own and returns the path. Raises as ``start_run``."""
    record = result.record
    spec: dict[str, Any] = {"kind": "ablation", "model": record.model, "task": record.task, "record": record.to_json()}
    spec["values"] = sha256(result.values.tobytes())
    return write_once(folder, spec, lambda writer: write_ablation(writer, result)).path


def write_ablation(writer: RunWriter, result: AblationResult) -> StoredRun:
    """Writes ``heads`` (one row per variant, with statistics) and ``examples`` (one row per variant and example) and finishes
    the run. An adaptive result also has ``estimates``, and the run's details hold their agreement with the exact effects.
    Raises ValueError for effects that cannot be right; the units are kept, and the run can be resumed."""
    tables = {"heads": result.heads(), "examples": result.examples()}
    details: dict[str, Any] = {"kind": "ablation", "shape": [result.n_layers, result.n_heads], "backend": result.backend}
    if result.estimate is not None:
        tables["estimates"] = result.estimate.heads()
        details["agreement"] = agreement(result.estimate.scores(), result.scores(), k=max(1, len(tables["heads"]) // 2))
    for name, table in tables.items():
        table.insert(0, "run_id", writer.run_id)
        writer.write_table(name, table)
    return writer.finish(result.record, **details)
