"""What a detector found, and what confirmed it, written to a run directory and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.confirmation import Confirmation
from interp.detectors import Detection, TokenDetection
from interp.errors import ArtefactInvalid
from interp.files import sha256
from interp.heads import Head, HeadScores, TokenScores
from interp.records import RunRecord
from interp.store.run_directory import RunWriter, StoredRun, open_run, start_run

if TYPE_CHECKING:
    import pandas as pd

    from interp.models.model import ModelFacts

_MAKERS = {"detection": "detect", "confirmation": "confirm"}
DECISION = ("threshold", "fwer", "literature_threshold")
SETS = "sets"
"""The table of a confirmation; the others have the names they have there."""


def save_detection(
    found: Detection | TokenDetection, facts: ModelFacts, folder: str | Path, spec: dict[str, Any] | None = None
) -> StoredRun:
    """Writes a detection to a run directory and returns the run; ``load_detection`` reads it back.

    Of heads, ``heads`` has one row a head and metric: ``score``, ``control`` and each of ``parts``, which ``StoredRun.scores`` reads by these
    names. Of tokens, ``tokens`` has one row a token and score, ``chosen.safetensors`` what was chosen. Further tables are stored under
    their own names. ``spec`` says what was asked; by default the run is what its numbers are. Raises ArtefactInvalid when the
    folder holds anything else.
    """
    scores = _named_scores(found)
    if spec is None:
        digests = {name: sha256(part.values.astype("float64").tobytes()) for name, part in scores.items()}
        spec = {"kind": "detection", "role": found.role, "record": found.record.to_json(), "values": digests}
    with start_run(folder, spec) as writer:
        if writer.finished:
            return open_run(folder)
        if isinstance(found, Detection):
            writer.write_table("heads", _head_rows(scores, facts))
            said: dict[str, Any] = {name: getattr(found, name) for name in DECISION}
        else:
            writer.write_table("tokens", _token_rows(scores))
            writer.write_arrays("masks", found.masks)
            groups = {name: [str(head) for head in heads] for name, heads in found.heads.items()}
            said = {"heads": groups, "masks": [*found.masks]}
        said |= {"role": found.role, "details": found.details, "prompts": sorted(found.prompts)}
        said["tables"] = _publish(writer, found.tables)
        metrics = {name: _about(part, found.record) for name, part in scores.items()}
        shape = [facts.n_layers, facts.n_heads]
        return writer.finish(found.record, kind="detection", shape=shape, metrics=metrics, detection=said)


def load_detection(path: str | Path) -> Detection | TokenDetection:
    """The detection that ``save_detection`` wrote here. Raises ArtefactInvalid for a run of another kind or a damaged one."""
    run = _open(path, "detection")
    said = run.manifest["details"]["detection"]
    kept = {"tables": _load_tables(run, said), "details": said["details"], "prompts": frozenset(said["prompts"])}
    if "heads.parquet" in run.manifest["files"]:
        scores = {name: _with_record(run, name, run.scores(name)) for name in run.metrics}
        first = {name: scores.pop(name) for name in ("score", "control")}
        decided = {name: said[name] for name in DECISION}
        return Detection(said["role"], first["score"], first["control"], **decided, extra_scores=scores, **kept)
    tokens = {name: _with_record(run, name, run.token_scores(name)) for name in run.metrics}
    heads = {name: tuple(map(Head.parse, labels)) for name, labels in said["heads"].items()}
    marks = run.arrays("masks")
    return TokenDetection(said["role"], tokens, {name: marks[name] for name in said["masks"]}, heads, **kept)


def save_confirmation(
    found: Confirmation, facts: ModelFacts, folder: str | Path, spec: dict[str, Any] | None = None
) -> StoredRun:
    """Writes a confirmation to a run directory and returns the run; ``load_confirmation`` reads it back.

    Tables: ``sets`` (its ``table``), ``curve`` and ``prompts``. ``spec`` and errors as in ``save_detection``.
    """
    if spec is None:
        values = sha256(found.table.to_csv(index=False).encode())
        spec = {"kind": "confirmation", "role": found.role, "record": found.record.to_json(), "values": values}
    with start_run(folder, spec) as writer:
        return open_run(folder) if writer.finished else publish_confirmation(writer, found, facts)


def publish_confirmation(writer: RunWriter, found: Confirmation, facts: ModelFacts) -> StoredRun:
    """Writes the tables of a confirmation to a run that was started, and finishes it."""
    writer.write_table(SETS, found.table)
    tables = _publish(writer, found.tables)
    said = {"role": found.role, "details": found.details, "tables": tables}
    return writer.finish(found.record, kind="confirmation", shape=[facts.n_layers, facts.n_heads], confirmation=said)


def load_confirmation(path: str | Path) -> Confirmation:
    """The confirmation that ``save_confirmation`` wrote here. Raises ArtefactInvalid for a run of another kind or a damaged one."""
    run = _open(path, "confirmation")
    said = run.manifest["details"]["confirmation"]
    return Confirmation(said["role"], run.table(SETS), run.record, said["details"], _load_tables(run, said))


def _open(path: str | Path, kind: str) -> StoredRun:
    run = open_run(path)
    _ = run.record  # refuses what is not finished
    other = run.manifest["details"].get("kind")
    if other != kind:
        raise ArtefactInvalid(
            f"{run.path} is a run of kind {other!r}, not a {kind}: give the directory that `interp {_MAKERS[kind]}` wrote."
        )
    return run


def _named_scores(found: Detection | TokenDetection) -> dict[str, Any]:
    """The scores by the names that they have in tables."""
    return (
        {"score": found.scores, "control": found.control, **found.extra_scores}
        if isinstance(found, Detection)
        else found.scores
    )


def _head_rows(scores: Mapping[str, HeadScores], facts: ModelFacts) -> pd.DataFrame:
    import pandas as pd

    table = pd.concat([part.to_dataframe().assign(metric=name) for name, part in scores.items()], ignore_index=True)
    heads = [Head(*pair) for pair in zip(table["layer"], table["head"], strict=True)]
    table.insert(2, "kv_head", pd.Series([facts.kv_head(head) for head in heads], dtype="int32"))
    return table


def _token_rows(scores: Mapping[str, TokenScores]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([part.to_dataframe().assign(metric=name) for name, part in scores.items()], ignore_index=True)


def _about(scores: HeadScores | TokenScores, record: RunRecord) -> dict[str, Any]:
    """What is known of a number beside its values; its record where it is more than another metric of the same run."""
    bounds = [None if bound is None else float(bound) for bound in scores.bounds]
    about: dict[str, Any] = {
        "label": scores.record.metric,
        "unit": scores.unit,
        "bounds": bounds,
        "nan_reason": scores.nan_reason,
    }
    if isinstance(scores, TokenScores):
        about |= {"axis": "key", "example": list(scores.example)}
    if scores.record != replace(record, metric=scores.record.metric):
        about["record"] = scores.record.to_json()
    return {**about, "title": scores.name}


def _with_record(run: StoredRun, name: str, scores: Any) -> Any:
    about = run.metrics[name]
    record = RunRecord.from_json(about["record"]) if "record" in about else scores.record
    kept = {"example": tuple(about["example"])} if "example" in about else {}
    return replace(scores, name=about["title"], record=record, **kept)


def _publish(writer: RunWriter, tables: Mapping[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Writes the tables that have rows; returns the columns of each, so that an empty one can be made again."""
    for name, table in tables.items():
        if not table.empty:
            writer.write_table(name, table)
    return {name: [str(column) for column in table.columns] for name, table in tables.items()}


def _load_tables(run: StoredRun, said: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    import pandas as pd

    there, known = run.manifest["files"], said["tables"]
    return {n: run.table(n) if f"{n}.parquet" in there else pd.DataFrame(columns=columns) for n, columns in known.items()}
