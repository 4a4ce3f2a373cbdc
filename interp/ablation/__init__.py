"""Every head ablated: effect tables, importance, pruning curves, and generation with heads ablated."""

from interp._lazy import exports

_HOMES = {
    "Continuation": "interp.ablation.ablated_generation",
    "ablate_heads": "interp.ablation.ablate_heads",
    "agreement": "interp.ablation.effect_tables",
    "compare_next": "interp.ablation.ablated_generation",
    "continue_prompt": "interp.ablation.ablated_generation",
    "gradient_importance": "interp.ablation.gradient_importance",
    "head_scores": "interp.ablation.effect_tables",
    "head_table": "interp.ablation.effect_tables",
    "normalise_layers": "interp.ablation.gradient_importance",
    "plan_ablation": "interp.ablation.ablate_heads",
    "pruning_curve": "interp.ablation.pruning_curve",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = exports(__name__, _HOMES)
