"""What was read from attention, written to its run directory: a number a head, a number a token, and every row and column."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.files import sha256
from interp.heads import Head
from interp.store.run_directory import StoredRun, open_run, start_run

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.attention.attention_observer import AttentionMetric, Observation
    from interp.models.model import ModelFacts


def save_observation(
    observation: Observation, facts: ModelFacts, folder: str | Path, spec: dict[str, Any] | None = None
) -> StoredRun:
    """Writes an observation to a run directory and returns the run, whose ``scores`` and ``token_scores`` read it back.

    ``heads`` has one row a head and metric, ``tokens`` (where a metric has one number a token) one row a token and metric, the mean over
    all heads; both leave out the metrics that are tables over something else. ``values.safetensors`` holds every metric as it was read,
    [n_layers batch head axis]. ``spec`` says what was asked; by default the run is what its values are. Raises ArtefactInvalid when the
    folder holds anything else.
    """
    metrics = list(observation.metrics.values())
    record = replace(observation.record, metric=", ".join(metric.label for metric in metrics))
    arrays = {name: values.float().cpu().numpy() for name, values in observation.values.items()}
    if spec is None:
        digests = {name: sha256(values.tobytes()) for name, values in arrays.items()}
        spec = {"kind": "attention", "record": record.to_json(), "values": digests}
    with start_run(folder, spec) as writer:
        if writer.finished:
            return open_run(folder)
        per_head = [m.name for m in metrics if m.axis in ("query", "key", "text") or m.per_head]
        per_token = [m.name for m in metrics if m.axis in ("query", "key")]
        if per_head:
            writer.write_table("heads", _heads(observation, per_head, facts))
        if per_token:
            writer.write_table("tokens", _tokens(observation, per_token))
        writer.write_arrays("values", arrays)
        shape = [facts.n_layers, facts.n_heads]
        return writer.finish(record, kind="attention", shape=shape, metrics={m.name: _facts(m) for m in metrics})


def _heads(observation: Observation, names: list[str], facts: ModelFacts) -> pd.DataFrame:
    import pandas as pd

    table = pd.concat([observation.heads(name).to_dataframe() for name in names], ignore_index=True)
    heads = [Head(*pair) for pair in zip(table["layer"], table["head"], strict=True)]
    table.insert(2, "kv_head", pd.Series([facts.kv_head(head) for head in heads], dtype="int32"))
    return table


def _tokens(observation: Observation, names: list[str]) -> pd.DataFrame:
    """One row a token and metric, without the padding."""
    import pandas as pd

    token_mask = observation.prompts.token_mask.cpu().numpy().ravel()
    return pd.concat([observation.tokens(name).to_dataframe().loc[token_mask] for name in names], ignore_index=True)


def _facts(metric: AttentionMetric) -> dict[str, Any]:
    bounds = [None if bound is None else float(bound) for bound in metric.bounds]
    about = {"label": metric.label, "unit": metric.unit, "bounds": bounds, "nan_reason": metric.undefined}
    return {**about, "axis": metric.axis, "paper": metric.paper}
