"""The tables of a sweep, written to its run directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.ablation.effect_tables import agreement, example_table, head_scores, head_table
from interp.store.run_directory import RunWriter, StoredRun

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.sweep.sweep import SweepResult
    from interp.models.model import ModelFacts


def save_ablation(writer: RunWriter, result: SweepResult, facts: ModelFacts, seed: int = 0) -> StoredRun:
    """Publishes ``heads`` (one row per variant, with statistics) and ``examples`` (one row per variant and example) and finishes the run.

    Where a gradient estimate chose the variants, it is published as ``estimates``, and the run's details say how well the two agree.
    ``seed`` is that of the statistics. Raises ValueError for effects that cannot be true; the units stay and the run can be resumed.
    """
    shape, heads = [facts.n_layers, facts.n_heads], head_table(result, facts, seed)
    details: dict[str, Any] = {"kind": "ablation", "shape": shape, "statistics_seed": seed, "backend": result.backend}
    writer.write_table("heads", _signed(heads, writer.run_id))
    writer.write_table("examples", _signed(example_table(result, facts), writer.run_id))
    if result.estimate is not None:
        estimates = head_table(result.estimate, facts, seed)
        writer.write_table("estimates", _signed(estimates, writer.run_id))
        both = [head_scores(table, result.record, shape) for table in (estimates, heads)]
        details["agreement"] = agreement(*both, k=max(1, len(heads) // 2))
    return writer.finish(result.record, **details)


def _signed(table: pd.DataFrame, run_id: str) -> pd.DataFrame:
    signed = table.copy()
    signed.insert(0, "run_id", run_id)
    return signed
