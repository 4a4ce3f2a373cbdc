"""GELU in one step, where a model writes it out in eight: the same function to rounding, a sixth of a sweep's time on GPT-2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

WRITTEN_OUT = "NewGELUActivation"


@contextmanager
def fused_modules(hf: nn.Module | None) -> Iterator[None]:
    """Within the context, activation modules that compute tanh-GELU step by step are replaced by torch's own."""
    places = [
        (parent, name, child)
        for parent in (hf.modules() if hf is not None else ())
        for name, child in parent.named_children()
        if type(child).__name__ == WRITTEN_OUT
    ]
    for parent, name, _ in places:
        setattr(parent, name, nn.GELU(approximate="tanh"))
    try:
        yield
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)
