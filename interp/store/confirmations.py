"""Confirmations as run directories, written and read back."""

from pathlib import Path
from typing import Any

from interp.confirmation import Confirmation
from interp.files import sha256
from interp.models.model import ModelFacts
from interp.store.detections import load_tables, write_tables
from interp.store.manifest import reading
from interp.store.run_directory import RunWriter, StoredRun, open_run, write_once

SETS = "sets"
"""Name of a confirmation's main table; its other tables keep their names."""


def save_confirmation(
    confirmation: Confirmation, facts: ModelFacts, folder: str | Path, spec: dict[str, Any] | None = None
) -> StoredRun:
    """Writes a confirmation to a run directory and returns the run; ``load_confirmation`` reads it back. Tables: ``sets`` (its
    ``table``), ``curve`` and ``prompts``. ``spec`` and errors as in ``save_detection``."""
    if spec is None:
        values = sha256(confirmation.table.to_csv(index=False).encode())
        spec = {"kind": "confirmation", "role": confirmation.role, "record": confirmation.record.to_json(), "values": values}
    return write_once(folder, spec, lambda writer: write_confirmation(writer, confirmation, facts))


def write_confirmation(writer: RunWriter, confirmation: Confirmation, facts: ModelFacts) -> StoredRun:
    """Writes the tables of a confirmation to a started run and finishes it."""
    writer.write_table(SETS, confirmation.table)
    tables = write_tables(writer, confirmation.tables)
    details = {"role": confirmation.role, "details": confirmation.details, "tables": tables}
    return writer.finish(confirmation.record, kind="confirmation", shape=[facts.n_layers, facts.n_heads], confirmation=details)


def load_confirmation(path: str | Path) -> Confirmation:
    """The confirmation that ``save_confirmation`` wrote here. Raises ArtefactInvalid for a run of another kind or a damaged one."""
    run = open_run(path, "confirmation")
    with reading(run.path):
        details = run.manifest["details"]["confirmation"]
        return Confirmation(details["role"], run.table(SETS), run.record, details["details"], load_tables(run, details))
