"""Circuits with their scores and faithfulness as run directories, written and read back."""

from pathlib import Path
from typing import Any

from interp.circuits import Circuit, EdgeScores, FaithfulnessCurve, load_circuit
from interp.store.manifest import reading
from interp.store.run_directory import RunWriter, StoredRun, open_run, write_once

KIND, FILE, EDGES, FAITHFULNESS, ESTIMATES = "circuit", "circuit", "edges", "faithfulness", "estimates"


def save_circuit(
    circuit: Circuit, scores: EdgeScores, curve: FaithfulnessCurve, folder: str | Path, spec: dict[str, Any], **details: Any
) -> StoredRun:
    """Writes a circuit to a run directory, as ``write_circuit``, and returns the run. ``spec`` identifies it. Raises as ``start_run``."""
    return write_once(folder, spec, lambda writer: write_circuit(writer, circuit, scores, curve, **details))


def write_circuit(
    writer: RunWriter, circuit: Circuit, scores: EdgeScores, curve: FaithfulnessCurve, **details: Any
) -> StoredRun:
    """Writes the tables of a circuit and finishes the run; ``load_circuit_run`` reads it back. ``circuit.json`` is the
    circuit file; the table ``edges`` has every score and whether the edge is in the circuit, ``faithfulness`` the curve.
    Scores with ``exact_top`` also have ``estimates`` of all edges, and the run's details hold their agreement with the exact effects.
    ``details`` (JSON values) are stored beside them."""
    graph, record = circuit.graph, scores.record
    origin = {"method": scores.method, "ablation": record.arguments.get("ablation", "")}
    summary = {
        **origin,
        "n_edges": len(circuit),
        "n_graph_edges": len(graph.edges),
        "n_nonzero": scores.n_nonzero,
        "noise_floor": scores.noise_floor,
        "clean": float(scores.clean.mean()),
        "corrupted": float(scores.corrupted.mean()),
        "requested_size": circuit.metadata.get("k", len(circuit)),
        "n_heads": len(circuit.heads),
        "curve": {"clean": curve.clean, "corrupted": curve.corrupted},
    }
    writer.write_table(EDGES, circuit.to_dataframe().assign(metric=record.metric, **origin))
    writer.write_table(FAITHFULNESS, curve.table)
    agreement = {}
    if scores.estimate is not None:
        writer.write_table(ESTIMATES, scores.estimate.to_dataframe())
        agreement = {"agreement": scores.agreement}
    writer.write_json(FILE, circuit.to_json())
    return writer.finish(record, kind=KIND, shape=[graph.n_layers, graph.n_heads], circuit={**summary, **details}, **agreement)


def load_circuit_run(path: str | Path) -> tuple[Circuit, FaithfulnessCurve]:
    """The circuit and the curve that ``save_circuit`` wrote. Raises ArtefactInvalid for a run of another kind or a damaged one."""
    run = open_run(path, KIND)
    with reading(run.path):
        ends = run.manifest["details"]["circuit"]["curve"]
        curve = FaithfulnessCurve(run.table(FAITHFULNESS), ends["clean"], ends["corrupted"], run.record)
        return load_circuit(run.json_file(FILE)), curve
