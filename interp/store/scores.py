"""``HeadScores`` as run directories of their own."""

from __future__ import annotations

from pathlib import Path

from interp.files import sha256
from interp.heads import HeadScores
from interp.store.run_directory import StoredRun, open_run, start_run


def save_scores(scores: HeadScores, folder: str | Path) -> Path:
    """Writes the scores with their record to a run directory and returns its path; ``load_scores`` reads them back equal.

    Raises ArtefactInvalid when the folder holds anything else.
    """
    facts = {"unit": scores.unit, "bounds": list(scores.bounds), "nan_reason": scores.nan_reason}
    named = {"name": scores.name, "record": scores.record.to_json(), **facts}
    spec = {"scores": named, "values": sha256(scores.values.astype("float64").tobytes())}
    with start_run(folder, spec) as writer:
        if not writer.finished:
            writer.write_table("heads", scores.to_dataframe())
            about = {scores.name: {"label": scores.record.metric, **facts}}
            writer.finish(scores.record, kind="scores", shape=list(scores.values.shape), metrics=about)
    return Path(folder)


def load_scores(folder: str | Path) -> HeadScores:
    """The scores of a run directory: those that ``save_scores`` wrote, or the effects of a sweep."""
    run: StoredRun = open_run(folder)
    return run.scores()
