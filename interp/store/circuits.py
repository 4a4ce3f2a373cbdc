"""A circuit with its scores and its faithfulness, written to a run directory and read back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.circuits import Circuit, FaithfulnessCurve, load_circuit
from interp.errors import ArtefactInvalid
from interp.store.run_directory import StoredRun, open_run, start_run

if TYPE_CHECKING:
    from interp.circuits import EdgeScores

KIND, FILE, EDGES, FAITHFULNESS = "circuit", "circuit", "edges", "faithfulness"


def save_circuit(
    circuit: Circuit, scores: EdgeScores, curve: FaithfulnessCurve, folder: str | Path, spec: dict[str, Any], **details: Any
) -> StoredRun:
    """Writes a circuit to a run directory and returns the run; ``load_circuit_run`` reads it back.

    ``circuit.json`` is the circuit file, the table ``edges`` all scores with what is in the circuit, ``faithfulness`` the curve. ``spec``
    says what was asked, ``details`` (JSON values) are kept beside the numbers. Raises ArtefactInvalid when the folder holds
    anything else.
    """
    graph = circuit.graph
    with start_run(folder, spec) as writer:
        if writer.finished:
            return open_run(folder)
        how = {"method": scores.method, "ablation": scores.record.arguments.get("ablation", "")}
        writer.write_table(EDGES, circuit.to_dataframe().assign(metric=scores.record.metric, **how))
        writer.write_table(FAITHFULNESS, curve.table)
        writer.write_json(FILE, circuit.to_json())
        said = {**how, "n_edges": len(circuit), "n_graph_edges": len(graph.edges), "n_nonzero": scores.n_nonzero}
        said |= {
            "rounding_floor": scores.floor,
            "clean": float(scores.clean.mean()),
            "corrupted": float(scores.corrupted.mean()),
        }
        said |= {"requested_size": circuit.about.get("k", len(circuit)), "n_heads": len(circuit.heads)}
        said["curve"] = {"clean": curve.clean, "corrupted": curve.corrupted}
        return writer.finish(scores.record, kind=KIND, shape=[graph.n_layers, graph.n_heads], circuit={**said, **details})


def load_circuit_run(path: str | Path) -> tuple[Circuit, FaithfulnessCurve]:
    """The circuit and the curve that ``save_circuit`` wrote here. Raises ArtefactInvalid for a run of another kind or a damaged one."""
    run = open_run(path)
    record = run.record  # refuses what is not finished
    if (other := run.manifest["details"].get("kind")) != KIND:
        raise ArtefactInvalid(
            f"{run.path} is a run of kind {other!r}, not a circuit: give the directory that `interp circuit` wrote."
        )
    said = run.manifest["details"]["circuit"]["curve"]
    curve = FaithfulnessCurve(run.table(FAITHFULNESS), said["clean"], said["corrupted"], record)
    return load_circuit(run.json_file(FILE)), curve
