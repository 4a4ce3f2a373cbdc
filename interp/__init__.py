"""interp: which attention heads matter, what they do, and whether to believe it.

The names below are what a notebook needs; each is loaded on first use, so that ``import interp`` costs milliseconds and
never imports torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Head": "interp.heads",
    "HeadScores": "interp.heads",
    "TokenScores": "interp.heads",
    "RunRecord": "interp.records",
    "load_model": "interp.models",
    "doctor": "interp.models",
    "make_task": "interp.tasks",
    "task_from_jsonl": "interp.tasks",
    "run": "interp.engine",
    "capture": "interp.engine",
    "sweep": "interp.engine",
    "ablate_heads": "interp.metrics",
    "open_run": "interp.store",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"interp has no attribute {name!r}. It has: {', '.join(sorted(__all__))}.")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
