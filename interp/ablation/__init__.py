"""Every head ablated: effects with intervals and controls, gradient importance, pruning curves, and generation with heads ablated."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import ablate_heads as ablate_heads
    from interp.ablation.ablate_heads import estimate_cost as estimate_cost
    from interp.ablation.ablated_generation import Continuation as Continuation
    from interp.ablation.ablated_generation import compare_next_tokens as compare_next_tokens
    from interp.ablation.ablated_generation import continue_prompt as continue_prompt
    from interp.ablation.ablation_result import AblationResult as AblationResult
    from interp.ablation.ablations import ablations as ablations
    from interp.ablation.ablations import build_variant as build_variant
    from interp.ablation.effect_tables import agreement as agreement
    from interp.ablation.fidelity import FIDELITY_METRICS as FIDELITY_METRICS
    from interp.ablation.fidelity import fidelity as fidelity
    from interp.ablation.gradient_importance import gradient_importance as gradient_importance
    from interp.ablation.gradient_importance import normalise_layers as normalise_layers
    from interp.ablation.pruning_curve import pruning_curve as pruning_curve
else:
    __all__, __getattr__, __dir__ = exports(__name__)
