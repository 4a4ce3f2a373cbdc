"""The one form of a change to a run.

Where it applies, the activation becomes ``x + strength * (replacement(x) - x)``. ``strength=0`` is the identity, bit for bit; values
between 0 and 1 are the straight path that integrated gradients walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from interp.heads import Head

if TYPE_CHECKING:
    import torch

SITES = ("z", "pattern", "scores")


class InterventionContext(NamedTuple):
    """What a default may know about the slice it is given.

    ``example_ids`` [batch] are the example indices, ``positions`` [batch pos] the token positions of the slice; at ``pattern`` and ``scores``,
    where these are the queries, ``visible`` [batch query key] says which keys each may see and ``keys`` [batch key] where these stand.
    All but ``example_ids`` may have one row for all.
    """

    head: Head
    example_ids: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor | None = None
    keys: torch.Tensor | None = None

    def where(self, marked: torch.Tensor) -> torch.Tensor:
        """Of positions that are marked for every example of a task [n_examples pos], the keys of this slice, [batch key]; what lies
        beyond is not marked."""
        assert self.keys is not None
        own = marked[self.example_ids.to(marked.device)].to(self.keys.device)
        keys, length = self.keys.expand(len(own), -1), own.shape[1]
        return own.gather(1, keys.clamp(0, length - 1)) & (keys >= 0) & (keys < length)


Default = Callable[["torch.Tensor", InterventionContext], "torch.Tensor"]


@dataclass(frozen=True)
class Intervention:
    """A change of some heads at one site.

    ``site`` is ``z`` (the head's output before W_O, slices [batch pos d_head]), ``pattern`` (attention weights, slices
    [batch query key]) or ``scores`` (the same before the softmax). ``positions`` is ``all``, ``end``, the name of a mark, or token
    indices (of queries, where there are keys).
    ``label`` says in a table what was done.
    """

    site: str
    heads: tuple[Head, ...]
    replacement: Default
    label: str
    positions: str | tuple[int, ...] = "all"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"Intervention {self.label!r}: site {self.site!r} is not one of {', '.join(SITES)}.")
        if not self.heads:
            raise ValueError(f"Intervention {self.label!r} names no head.")
        if len(set(self.heads)) != len(self.heads):
            raise ValueError(f"Intervention {self.label!r} names a head twice: {', '.join(map(str, self.heads))}.")

    def apply(self, x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        """``x + strength * (replacement(x) - x)``; the tensor itself when ``strength`` is 0, the default itself when it is 1."""
        if self.strength == 0:
            return x
        changed = self.replacement(x, context).to(x.dtype).expand_as(x)
        return changed if self.strength == 1 else x + self.strength * (changed - x)

    def __str__(self) -> str:
        """The change in words: label, heads, positions, strength."""
        return f"{self.label} {' '.join(map(str, self.heads))} @{self.positions} x{self.strength:g}"

    def at(self, strength: float) -> Intervention:
        """The same change at another strength."""
        return replace(self, strength=strength)
