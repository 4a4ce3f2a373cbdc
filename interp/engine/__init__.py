"""The run itself: the only room with hooks."""

from interp._lazy import exports

_HOMES = {
    "run": "interp.engine.forward.run",
    "ForwardRun": "interp.engine.forward.run",
    "sweep": "interp.engine.sweep.sweep",
    "SweepResult": "interp.engine.sweep.sweep",
    "Outcome": "interp.engine.sweep.outcome",
    "Answers": "interp.engine.sweep.outcome",
    "attribute": "interp.engine.gradients.attribution_patching",
    "capture": "interp.engine.forward.capture",
    "capture_attention": "interp.engine.attention.qk_cache",
    "load_attention": "interp.engine.attention.qk_cache",
    "AttentionCache": "interp.engine.attention.qk_cache",
    "generate": "interp.engine.forward.generation",
    "next_token_entropy": "interp.engine.forward.generation",
    "observe": "interp.engine.attention.attention_observer",
    "observing": "interp.engine.attention.attention_observer",
    "Observation": "interp.engine.attention.attention_observer",
    "AttentionMetric": "interp.engine.attention.attention_observer",
    "TokenBatch": "interp.engine.attention.attention_rows",
    "AttentionRows": "interp.engine.attention.attention_rows",
}
__all__ = list(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)
