"""The run itself: the only room with hooks."""

from importlib import import_module
from typing import Any

_HOMES = {
    "run": "interp.engine.hooked",
    "Run": "interp.engine.hooked",
    "sweep": "interp.engine.sweep",
    "SweepResult": "interp.engine.sweep",
    "Outcome": "interp.engine.outcome",
    "Answers": "interp.engine.outcome",
    "attribute": "interp.engine.attribution",
    "capture": "interp.engine.capture",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"interp.engine has no attribute {name!r}. It has: {', '.join(_HOMES)}.")
    return getattr(import_module(_HOMES[name]), name)
