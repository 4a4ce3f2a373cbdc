"""Loading a model: embedded, from a folder, from the Hub, in memory, or a toy trained with TransformerLens 2.x.

Names are resolved on first use, so that importing this room costs no torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Layout": "interp.models.model",
    "Model": "interp.models.model",
    "ModelFacts": "interp.models.model",
    "doctor": "interp.models.selfcheck",
    "embedded_names": "interp.models.embedded",
    "load_model": "interp.models.load",
    "load_toy": "interp.models.native",
    "wrap_model": "interp.models.wrap",
}
__all__ = ["Layout", "Model", "ModelFacts", "doctor", "embedded_names", "load_model", "load_toy", "wrap_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"interp.models has no attribute {name!r}. It has: {', '.join(sorted(_HOMES))}.")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
