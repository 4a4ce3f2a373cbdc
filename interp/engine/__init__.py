"""The run itself: the only room with hooks."""

from interp._lazy import exports

_HOMES = {
    "run": "interp.engine.hooked",
    "Run": "interp.engine.hooked",
    "sweep": "interp.engine.sweeps",
    "SweepResult": "interp.engine.sweeps",
    "Outcome": "interp.engine.outcome",
    "Answers": "interp.engine.outcome",
    "attribute": "interp.engine.attribution",
    "capture": "interp.engine.captures",
    "capture_attention": "interp.engine.attention_cache",
    "load_attention": "interp.engine.attention_cache",
    "AttentionCache": "interp.engine.attention_cache",
    "generate": "interp.engine.generation",
    "next_token_entropy": "interp.engine.generation",
    "observe": "interp.engine.observation",
    "observing": "interp.engine.observation",
    "Observation": "interp.engine.observation",
    "AttentionMetric": "interp.engine.observation",
    "Prompts": "interp.engine.rows",
    "Rows": "interp.engine.rows",
}
__all__ = list(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)
