"""The tables of a sweep, written to its run directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.metrics.importance import example_table, head_table
from interp.store.runs import Run, Writer

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.sweep import SweepResult
    from interp.models.model import ModelFacts


def save_sweep(writer: Writer, result: SweepResult, facts: ModelFacts, seed: int = 0) -> Run:
    """Publishes ``heads`` (one row per variant, with statistics) and ``examples`` (one row per variant and example) and finishes the run.

    ``seed`` is that of the statistics. Raises ValueError for effects that cannot be true; the units stay and the run can be resumed.
    """
    writer.publish("heads", _signed(head_table(result, facts, seed), writer.run_id))
    writer.publish("examples", _signed(example_table(result, facts), writer.run_id))
    return writer.finish(result.record, kind="sweep", shape=[facts.n_layers, facts.n_heads], statistics_seed=seed)


def _signed(table: pd.DataFrame, run_id: str) -> pd.DataFrame:
    signed = table.copy()
    signed.insert(0, "run_id", run_id)
    return signed
