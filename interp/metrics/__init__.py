"""Numbers read from runs: outcomes of a task, the importance of heads, and how sure each is."""

from interp._lazy import exports

_HOMES = {
    "ATTENTION_METRICS": "interp.metrics.attention",
    "OUTCOMES": "interp.metrics.outcomes",
    "attention_metrics": "interp.metrics.attention",
    "observe_attention": "interp.metrics.attention",
    "PreplanAnchors": "interp.metrics.waad_fai",
    "preplan_and_anchors": "interp.metrics.waad_fai",
    "split_heads": "interp.metrics.waad_fai",
    "HeadPairScores": "interp.metrics.head_clusters",
    "cluster_heads": "interp.metrics.head_clusters",
    "output_similarity": "interp.metrics.head_clusters",
    "pattern_similarity": "interp.metrics.head_clusters",
    "cached_maps": "interp.metrics.attention_rollout",
    "pattern_maps": "interp.metrics.attention_rollout",
    "rollout": "interp.metrics.attention_rollout",
    "token_rollout": "interp.metrics.attention_rollout",
    "uniform_maps": "interp.metrics.attention_rollout",
    "overview": "interp.metrics.thumbnails",
    "thumbnails": "interp.metrics.thumbnails",
    "score_task": "interp.metrics.baseline",
    "MassiveActivations": "interp.metrics.massive_activations",
    "massive_activations": "interp.metrics.massive_activations",
    "SinkColumns": "interp.metrics.sink_calibration",
    "calibrate_heads": "interp.metrics.sink_calibration",
    "improving_heads": "interp.metrics.sink_calibration",
    "sink_columns": "interp.metrics.sink_calibration",
    "SparsePattern": "interp.metrics.top_weights",
    "sparse_patterns": "interp.metrics.top_weights",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = exports(__name__, _HOMES)
