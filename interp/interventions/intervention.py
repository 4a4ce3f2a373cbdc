"""A change to a run: one type, one equation, and the decorator that registers a constructor.

Where it applies, the activation becomes ``x + strength * (replacement(x) - x)``. ``strength=0`` is the identity, bit for bit; values
between 0 and 1 lie on the straight path of integrated gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

from interp.errors import ExtensionError, shape_or_type
from interp.heads import Head

if TYPE_CHECKING:
    import torch

SITES = ("z", "pattern", "scores")


class InterventionContext(NamedTuple):
    """What a replacement knows about the slice it is given.

    ``example_ids`` [batch] are the example indices, ``positions`` [batch pos] the token positions of the slice. At ``pattern`` and
    ``scores`` these are the positions of the queries, ``visible`` [batch query key] is True for the keys that each may attend to, and
    ``keys`` [batch key] are the positions of the keys. All but ``example_ids`` may have one row for the whole batch.
    """

    head: Head
    example_ids: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor | None = None
    keys: torch.Tensor | None = None

    def where(self, marked: torch.Tensor) -> torch.Tensor:
        """The keys of this slice, [batch key], that are True in ``marked`` [n_examples pos]; positions beyond its width are False."""
        assert self.keys is not None
        own = marked[self.example_ids.to(marked.device)].to(self.keys.device)
        keys, length = self.keys.expand(len(own), -1), own.shape[1]
        return own.gather(1, keys.clamp(0, length - 1)) & (keys >= 0) & (keys < length)


Replacement = Callable[["torch.Tensor", InterventionContext], "torch.Tensor"]
Positions = str | tuple[int, ...]


@runtime_checkable
class ActivationSource(Protocol):
    """Activations of another run: ``z`` of one head for given examples [batch] and positions [batch or 1, pos], [batch pos d_head]."""

    def z(self, head: Head, example_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Intervention:
    """A change of some heads at one site.

    ``site`` is ``z`` (the head's output before W_O, slices [batch pos d_head]), ``pattern`` (attention weights, slices
    [batch query key]) or ``scores`` (the same before the softmax). ``positions`` is ``all``, ``end``, the name of a mark, or token
    indices (of queries, at the latter two sites). ``label`` names the change in tables.
    """

    site: str
    heads: tuple[Head, ...]
    replacement: Replacement
    label: str
    positions: Positions = "all"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"Intervention {self.label!r}: site {self.site!r} is not one of {', '.join(SITES)}.")
        if not self.heads:
            raise ValueError(f"Intervention {self.label!r} names no head.")
        if len(set(self.heads)) != len(self.heads):
            raise ValueError(f"Intervention {self.label!r} names a head twice: {', '.join(map(str, self.heads))}.")

    def apply(self, x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        """``x + strength * (replacement(x) - x)``; ``x`` itself when ``strength`` is 0, the replacement itself when it is 1."""
        if self.strength == 0:
            return x
        changed = self._checked(self.replacement(x, context), x).to(x.dtype).expand_as(x)
        return changed if self.strength == 1 else x + self.strength * (changed - x)

    def _checked(self, changed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """What the replacement returned; raises ExtensionError unless it is a tensor that broadcasts to ``x``."""
        shape = changed.shape if hasattr(changed, "expand_as") else None
        if (
            shape is None
            or len(shape) > x.dim()
            or any(n not in (1, m) for n, m in zip(shape[::-1], x.shape[::-1], strict=False))
        ):
            axes = "[batch pos d_head]" if self.site == "z" else "[batch query key]"
            raise ExtensionError(
                f"The replacement of intervention {self.label!r} must return {axes} {tuple(x.shape)}, or what broadcasts to it, "
                f"not {shape_or_type(changed)}."
            )
        return changed

    def __str__(self) -> str:
        """Label, heads, positions and strength."""
        return f"{self.label} {' '.join(map(str, self.heads))} @{self.positions} x{self.strength:g}"

    def at(self, strength: float) -> Intervention:
        """The same change at another strength."""
        return replace(self, strength=strength)


Constructor = TypeVar("Constructor", bound=Callable[..., Intervention])


def intervention(*, needs: tuple[str, ...] = ()) -> Callable[[Constructor], Constructor]:
    """A decorator that registers a constructor ``(heads, *needs, **options, positions="all") -> Intervention``.

    ``needs`` are the parameters that ``ablate_heads`` and the commands supply from the model and the task: ``means`` (mean z over the
    prompts, [n_layers n_heads d_head]), ``clean`` and ``corrupted`` (``ActivationSource`` of the clean and the corrupted prompts),
    ``source_ids`` (for each example another one of equal length), ``sinks`` (sink columns, [n_layers n_examples n_heads pos]) and
    ``targets`` (marked tokens, [n_examples pos]). All other parameters are options, written ``scale:factor=0.5``. The first line of
    the docstring describes the intervention in lists.
    """

    def declare(constructor: Constructor) -> Constructor:
        about = (constructor.__doc__ or "").strip().split("\n")[0].rstrip(".").replace("``", "")
        constructor.__dict__.update(needs=needs, about=about)
        return constructor

    return declare
