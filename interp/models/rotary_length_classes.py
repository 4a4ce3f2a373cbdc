"""Whether the length of a batch changes the outputs of shorter prompts in it, as under longrope and dynamic NTK scaling."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from threading import RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

LONGEST = 1 << 20
"""Tokens up to which frequencies are compared where a model states no longest text."""


class LengthClasses:
    """The class of a length of a model's prompts: prompts whose lengths have equal classes can share a batch.

    A class is the rotary embedding of the second token in a batch of this length, as every rotary module of the model computes it. The
    modules themselves are asked, so that no scaling has to be known by name; some change themselves in the answer, hence the ``lock``.
    """

    def __init__(self, hf: nn.Module | None, longest: int | None, lock: RLock) -> None:
        self._hf, self._longest, self._lock = hf, longest or LONGEST, lock
        self._found: dict[int, bytes] = {}
        self._all_alike: bool | None = None if hf is not None else True

    def __call__(self, length: int) -> bytes:
        """The class of prompts of ``length`` tokens."""
        with self._lock:
            if self._all_alike is None:
                self._all_alike = self._class(2) == self._class(self._longest)
            return b"" if self._all_alike else self._class(length)

    def _class(self, length: int) -> bytes:
        if length not in self._found:
            parts = (part for module in _rotary(self._hf) for part in _second_token(self._hf, module, length))
            self._found[length] = b"".join(part.float().cpu().numpy().tobytes() for part in parts)
        return self._found[length]


def _rotary(hf: Any) -> Iterator[nn.Module]:
    for module in hf.modules():
        if any("inv_freq" in name for name, _ in module.named_buffers(recurse=False)) and "position_ids" in _parameters(module):
            yield module


def _parameters(module: nn.Module) -> dict[str, Any]:
    return dict(signature(module.forward).parameters)


def _second_token(hf: Any, module: nn.Module, length: int) -> Iterator[torch.Tensor]:
    import torch

    position_ids = torch.tensor([[min(1, length - 1), length - 1]], device=hf.device)
    x = torch.zeros(1, 2, 1, device=hf.device, dtype=torch.float32)
    known = getattr(module, "rope_type", None)  # by kind of layer, where there are several
    kinds = sorted(
        known if isinstance(known, dict) else set(getattr(hf.config.get_text_config(decoder=True), "layer_types", None) or ())
    )
    for options in [{"layer_type": kind} for kind in kinds] if "layer_type" in _parameters(module) else [{}]:
        with torch.no_grad():
            found = module(x, position_ids=position_ids, **options)
        yield from (part[0, 0] for part in (found if isinstance(found, tuple) else (found,)))
