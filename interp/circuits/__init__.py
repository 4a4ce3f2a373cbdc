"""Circuits: which edges of a model's graph carry a behaviour, and how faithful the part is to the whole."""

from interp._lazy import exports

_HOMES = {
    "Circuit": "interp.circuits.circuit",
    "EdgeScores": "interp.circuits.finding",
    "FaithfulnessCurve": "interp.circuits.believing",
    "Edge": "interp.graph",
    "Graph": "interp.graph",
    "Node": "interp.graph",
    "acdc": "interp.circuits.greedy",
    "Overlap": "interp.circuits.reuse",
    "Repair": "interp.circuits.reuse",
    "auroc": "interp.circuits.believing",
    "faithfulness_curve": "interp.circuits.believing",
    "head_overlap": "interp.circuits.reuse",
    "load_circuit": "interp.circuits.circuit",
    "outcomes_of_circuits": "interp.circuits.believing",
    "overlap": "interp.circuits.reuse",
    "repair": "interp.circuits.reuse",
    "score_edges": "interp.circuits.finding",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = exports(__name__, _HOMES)
