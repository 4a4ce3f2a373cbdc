"""Modules that a model writes out step by step, computed in fewer steps and less memory: equal to rounding, without gradients.

Tanh-GELU in eight steps is a sixth of a sweep's time on GPT-2; a gated product made in place saves a twentieth on a small Llama.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def _gelu(module: Any, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_(x, approximate="tanh")  # in place: what a linear layer gave nobody else reads


def _gated_mlp(module: Any, x: Tensor) -> Tensor:
    gate = module.gate_proj(x)
    silu = type(module.act_fn).__name__ == "SiLUActivation"
    gate = functional.silu(gate, inplace=True) if silu else module.act_fn(gate)
    return module.down_proj(gate.mul_(module.up_proj(x)))


SHORTER: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "NewGELUActivation": _gelu,
    **dict.fromkeys(("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"), _gated_mlp),
}
"""What is computed in place of a module, by the name of its class."""


@contextmanager
def fused_modules(hf: nn.Module | None) -> Iterator[None]:
    """Within the context, modules of these classes compute in fewer steps."""
    found = [module for module in (hf.modules() if hf is not None else ()) if type(module).__name__ in SHORTER]
    for module in found:
        module.__dict__["forward"] = partial(SHORTER[type(module).__name__], module)
    try:
        yield
    finally:
        for module in found:
            del module.__dict__["forward"]
