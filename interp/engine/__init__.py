"""Runs of the model with hooks, the only ones: attention observed and captured, activations, sweeps, attribution, generation."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.engine.attention.attention_metric import AttentionMetric as AttentionMetric
    from interp.engine.attention.attention_observer import Observation as Observation
    from interp.engine.attention.attention_observer import observe as observe
    from interp.engine.attention.attention_observer import observing as observing
    from interp.engine.attention.attention_rows import AttentionRows as AttentionRows
    from interp.engine.attention.permuted_query_null import observe_query_null as observe_query_null
    from interp.engine.attention.qk_cache import AttentionCache as AttentionCache
    from interp.engine.attention.qk_cache import capture_attention as capture_attention
    from interp.engine.attention.qk_cache import load_attention as load_attention
    from interp.engine.forward.capture import capture as capture
    from interp.engine.forward.generation import generate as generate
    from interp.engine.forward.next_token_entropy import next_token_entropy as next_token_entropy
    from interp.engine.forward.run import ForwardRun as ForwardRun
    from interp.engine.forward.run import run as run
    from interp.engine.gradients.attribution_patching import attribute as attribute
    from interp.engine.sweep.outcome import Answers as Answers
    from interp.engine.sweep.outcome import Outcome as Outcome
    from interp.engine.sweep.sweep import SweepResult as SweepResult
    from interp.engine.sweep.sweep import sweep as sweep
    from interp.tasks.token_batch import TokenBatch as TokenBatch
else:
    __all__, __getattr__, __dir__ = exports(__name__)
