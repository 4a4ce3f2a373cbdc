"""Numbers read from runs: outcomes of a task, the importance of heads, and how sure each is."""

from interp._lazy import exports

_HOMES = {
    "ATTENTION_METRICS": "interp.metrics.attention",
    "OUTCOMES": "interp.metrics.outcomes",
    "attention_metrics": "interp.metrics.attention",
    "observe_attention": "interp.metrics.attention",
    "ablate_heads": "interp.metrics.ablation",
    "plan_ablation": "interp.metrics.ablation",
    "Continuation": "interp.metrics.continuation",
    "compare_next": "interp.metrics.continuation",
    "continue_prompt": "interp.metrics.continuation",
    "agreement": "interp.metrics.importance",
    "head_scores": "interp.metrics.importance",
    "head_table": "interp.metrics.importance",
    "PreplanAnchors": "interp.metrics.preplan",
    "preplan_and_anchors": "interp.metrics.preplan",
    "split_heads": "interp.metrics.preplan",
    "HeadPairs": "interp.metrics.similarity",
    "cluster_heads": "interp.metrics.similarity",
    "output_similarity": "interp.metrics.similarity",
    "pattern_similarity": "interp.metrics.similarity",
    "cached_maps": "interp.metrics.flow",
    "given_maps": "interp.metrics.flow",
    "rollout": "interp.metrics.flow",
    "token_rollout": "interp.metrics.flow",
    "uniform_maps": "interp.metrics.flow",
    "overview": "interp.metrics.pooling",
    "thumbnails": "interp.metrics.pooling",
    "gradient_importance": "interp.metrics.gradients",
    "normalise_layers": "interp.metrics.gradients",
    "pruning_curve": "interp.metrics.pruning",
    "score_task": "interp.metrics.performance",
    "SparsePattern": "interp.metrics.sparse",
    "sparse_patterns": "interp.metrics.sparse",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = exports(__name__, _HOMES)
