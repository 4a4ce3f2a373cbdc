"""Numbers read from runs: outcomes of a task, the importance of heads, and how sure each is."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.engine.attention.attention_metric import AttentionMetric as AttentionMetric
    from interp.engine.sweep.outcome import Outcome as Outcome
    from interp.metrics.attention import ATTENTION_METRICS as ATTENTION_METRICS
    from interp.metrics.attention import attention_metrics as attention_metrics
    from interp.metrics.attention import observe_attention as observe_attention
    from interp.metrics.attention_rollout import cached_maps as cached_maps
    from interp.metrics.attention_rollout import pattern_maps as pattern_maps
    from interp.metrics.attention_rollout import rollout as rollout
    from interp.metrics.attention_rollout import token_rollout as token_rollout
    from interp.metrics.attention_rollout import uniform_maps as uniform_maps
    from interp.metrics.check_task import TaskCheck as TaskCheck
    from interp.metrics.check_task import check_task as check_task
    from interp.metrics.head_clusters_by_patterns_and_outputs import HeadPairScores as HeadPairScores
    from interp.metrics.head_clusters_by_patterns_and_outputs import cluster_heads as cluster_heads
    from interp.metrics.head_clusters_by_patterns_and_outputs import output_similarity as output_similarity
    from interp.metrics.head_clusters_by_patterns_and_outputs import pattern_similarity as pattern_similarity
    from interp.metrics.largest_weights_per_row import SparsePattern as SparsePattern
    from interp.metrics.largest_weights_per_row import sparse_patterns as sparse_patterns
    from interp.metrics.massive_activations import MassiveActivations as MassiveActivations
    from interp.metrics.massive_activations import massive_activations as massive_activations
    from interp.metrics.outcomes import OUTCOMES as OUTCOMES
    from interp.metrics.preplan_anchor_tokens import PreplanAnchors as PreplanAnchors
    from interp.metrics.preplan_anchor_tokens import preplan_and_anchors as preplan_and_anchors
    from interp.metrics.preplan_anchor_tokens import split_heads as split_heads
    from interp.metrics.score_task import score_task as score_task
    from interp.metrics.sink_calibration_effects import SinkColumns as SinkColumns
    from interp.metrics.sink_calibration_effects import calibrate_heads as calibrate_heads
    from interp.metrics.sink_calibration_effects import improving_heads as improving_heads
    from interp.metrics.sink_calibration_effects import sink_columns as sink_columns
    from interp.metrics.thumbnails import overview as overview
    from interp.metrics.thumbnails import thumbnails as thumbnails
else:
    __all__, __getattr__, __dir__ = exports(__name__)
