"""Scores in run directories: ``HeadScores`` as runs of their own, and the tables of scores that other runs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.files import sha256
from interp.heads import Head, HeadScores, TokenScores
from interp.store.run_directory import RunWriter, StoredRun, open_run, write_once

if TYPE_CHECKING:
    import pandas as pd

    from interp.models.model import ModelFacts


def save_scores(scores: HeadScores, folder: str | Path) -> Path:
    """Writes the scores with their record to a run directory and returns its path; ``load_scores`` reads them back equal.

    Raises ArtefactInvalid when the folder holds anything else.
    """
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


def head_rows(scores: Mapping[str, HeadScores], facts: ModelFacts) -> pd.DataFrame:
    """One row per head and metric, with the key/value head that it reads."""
    import pandas as pd

    table = pd.concat([part.to_dataframe().assign(metric=name) for name, part in scores.items()], ignore_index=True)
    heads = [Head(*pair) for pair in zip(table["layer"], table["head"], strict=True)]
    table.insert(2, "kv_head", pd.Series([facts.kv_head(head) for head in heads], dtype="int32"))
    return table


def token_rows(scores: Mapping[str, TokenScores], token_mask: Any = None) -> pd.DataFrame:
    """One row per token and metric; with ``token_mask`` (flat), only the tokens where it is True."""
    import pandas as pd

    tables = [part.to_dataframe().assign(metric=name) for name, part in scores.items()]
    return pd.concat([table if token_mask is None else table.loc[token_mask] for table in tables], ignore_index=True)


def metric_facts(label: str, unit: str, bounds: Sequence[float | None], nan_reason: str) -> dict[str, Any]:
    """Everything about a metric but its values, as JSON values."""
    limits = [None if bound is None else float(bound) for bound in bounds]
    return {"label": label, "unit": unit, "bounds": limits, "nan_reason": nan_reason}
