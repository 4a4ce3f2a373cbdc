"""Circuits: edge scores, circuits and their faithfulness, activation and path patching, head overlap, factual recall."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.circuits.acdc import acdc as acdc
    from interp.circuits.activation_patching import PatchGrid as PatchGrid
    from interp.circuits.activation_patching import patch_grid as patch_grid
    from interp.circuits.backup_heads import backup_heads as backup_heads
    from interp.circuits.circuit import Circuit as Circuit
    from interp.circuits.circuit import load_circuit as load_circuit
    from interp.circuits.circuit_overlap import compare_circuits as compare_circuits
    from interp.circuits.circuit_overlap import score_agreement as score_agreement
    from interp.circuits.completeness import Completeness as Completeness
    from interp.circuits.completeness import completeness as completeness
    from interp.circuits.direct_effects import ResidualContributions as ResidualContributions
    from interp.circuits.direct_effects import residual_contributions as residual_contributions
    from interp.circuits.discrete_codes import DiscreteCodes as DiscreteCodes
    from interp.circuits.discrete_codes import find_codes as find_codes
    from interp.circuits.edge_method_and_ablation_names import EDGE_ABLATIONS as EDGE_ABLATIONS
    from interp.circuits.edge_method_and_ablation_names import EDGE_METHODS as EDGE_METHODS
    from interp.circuits.edge_scores import EdgeScores as EdgeScores
    from interp.circuits.edge_scores import score_edges as score_edges
    from interp.circuits.factual_recall_and_suppression import head_scaling_curve as head_scaling_curve
    from interp.circuits.factual_recall_and_suppression import subject_heads as subject_heads
    from interp.circuits.factual_recall_and_suppression import suppression as suppression
    from interp.circuits.faithfulness import FaithfulnessCurve as FaithfulnessCurve
    from interp.circuits.faithfulness import auroc as auroc
    from interp.circuits.faithfulness import circuit_outcomes as circuit_outcomes
    from interp.circuits.faithfulness import faithfulness_curve as faithfulness_curve
    from interp.circuits.faithfulness_bisection import bisect_faithfulness as bisect_faithfulness
    from interp.circuits.head_overlap import Overlap as Overlap
    from interp.circuits.head_overlap import head_overlap as head_overlap
    from interp.circuits.head_overlap import overlap as overlap
    from interp.circuits.logit_attribution import LogitAttribution as LogitAttribution
    from interp.circuits.logit_attribution import direct_logit_attribution as direct_logit_attribution
    from interp.circuits.logit_attribution import direct_logit_attribution_from as direct_logit_attribution_from
    from interp.circuits.minimality import Minimality as Minimality
    from interp.circuits.minimality import minimality as minimality
    from interp.circuits.mlp_regression_on_heads import RidgeDecomposition as RidgeDecomposition
    from interp.circuits.mlp_regression_on_heads import decompose_mlp as decompose_mlp
    from interp.circuits.mlp_regression_on_heads import ridge_decompose as ridge_decompose
    from interp.circuits.node_attribution import score_nodes as score_nodes
    from interp.circuits.node_attribution import score_positions as score_positions
    from interp.circuits.path_patching import path_patch as path_patch
    from interp.circuits.path_patching import path_patch_stages as path_patch_stages
    from interp.circuits.repair_by_attending_to_wrong_answers import Repair as Repair
    from interp.circuits.repair_by_attending_to_wrong_answers import repair as repair
    from interp.circuits.stability import Stability as Stability
    from interp.circuits.stability import stability as stability
    from interp.graph import Edge as Edge
    from interp.graph import Graph as Graph
    from interp.graph import Node as Node
else:
    __all__, __getattr__, __dir__ = exports(__name__)
