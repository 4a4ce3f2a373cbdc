"""Circuits: which edges of a model's graph carry a behaviour, and how faithful the part is to the whole."""

from interp._lazy import exports

_HOMES = {
    "Circuit": "interp.circuits.circuit",
    "Decomposition": "interp.circuits.factual",
    "DirectLogits": "interp.circuits.direct",
    "DiscreteCodes": "interp.circuits.discrete_codes",
    "Edge": "interp.graph",
    "EdgeScores": "interp.circuits.finding",
    "FaithfulnessCurve": "interp.circuits.believing",
    "Graph": "interp.graph",
    "Node": "interp.graph",
    "Overlap": "interp.circuits.reuse",
    "Repair": "interp.circuits.reuse",
    "Writings": "interp.circuits.factual",
    "acdc": "interp.circuits.greedy",
    "auroc": "interp.circuits.believing",
    "compare_circuits": "interp.circuits.comparing",
    "damping": "interp.circuits.factual",
    "decompose": "interp.circuits.factual",
    "decompose_mlp": "interp.circuits.factual",
    "direct_logits": "interp.circuits.direct",
    "direct_logits_from": "interp.circuits.direct",
    "faithfulness_curve": "interp.circuits.believing",
    "find_codes": "interp.circuits.discrete_codes",
    "head_overlap": "interp.circuits.reuse",
    "load_circuit": "interp.circuits.circuit",
    "outcomes_of_circuits": "interp.circuits.believing",
    "overlap": "interp.circuits.reuse",
    "path_effects": "interp.circuits.paths",
    "path_stages": "interp.circuits.paths",
    "read_writings": "interp.circuits.factual",
    "repair": "interp.circuits.reuse",
    "score_agreement": "interp.circuits.comparing",
    "score_edges": "interp.circuits.finding",
    "subject_heads": "interp.circuits.factual",
    "suppression": "interp.circuits.factual",
    "sweep_again": "interp.circuits.again",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = exports(__name__, _HOMES)
