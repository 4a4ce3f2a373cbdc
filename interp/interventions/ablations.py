"""Ways to take a head out of a run; each is a constructor of ``Intervention``.

Which one is used changes the answer: ``zero`` leaves the distribution, ``mean`` and ``resample`` keep it, ``uniform`` keeps
the head's values and takes only its choice away (the operation in Wu et al.'s retrieval-head code). State it with every number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from interp.heads import Head
from interp.interventions.intervention import Intervention, InterventionContext

if TYPE_CHECKING:
    import torch


@runtime_checkable
class ActivationSource(Protocol):
    """Activations of another run: ``z`` of one head for given examples [batch] and positions [batch or 1, pos], [batch pos d_head]."""

    def z(self, head: Head, example_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor: ...


def zero(heads: Iterable[Head], positions: str | tuple[int, ...] = "all") -> Intervention:
    """The head writes nothing: z becomes 0 (biases of the output projection stay)."""
    return _at_z(heads, lambda x, context: x.new_zeros(()), "zero", positions)


def mean(heads: Iterable[Head], means: torch.Tensor, positions: str | tuple[int, ...] = "all") -> Intervention:
    """The head writes a constant: z becomes ``means[layer, head]``, of shape [n_layers n_heads d_head]."""
    return _at_z(heads, lambda x, context: means[context.head].to(x.device), "mean", positions)


def resample(
    heads: Iterable[Head], source: ActivationSource, source_ids: torch.Tensor, positions: str | tuple[int, ...] = "all"
) -> Intervention:
    """The head writes what it wrote for another example: ``source_ids[i]`` gives example ``i`` its replacement, position by position.

    Raises ValueError when an example is its own donor.
    """
    own = (source_ids.cpu() == source_ids.cpu().new_tensor(range(len(source_ids)))).nonzero().ravel().tolist()
    if own:
        raise ValueError(f"resample: example {own[0]} is its own donor; every example needs another one.")
    return _at_z(
        heads,
        lambda x, context: source.z(
            context.head, source_ids.to(context.example_ids.device)[context.example_ids], context.positions
        ),
        "resample",
        positions,
    )


def patch(heads: Iterable[Head], source: ActivationSource, positions: str | tuple[int, ...] = "all") -> Intervention:
    """The head writes what it wrote for the same example in another run (for instance the corrupted one)."""
    return _at_z(heads, lambda x, context: source.z(context.head, context.example_ids, context.positions), "patch", positions)


def scale(heads: Iterable[Head], factor: float, positions: str | tuple[int, ...] = "all") -> Intervention:
    """The head writes ``factor`` times what it wrote; 1 is the identity, 0 is ``zero``."""
    return Intervention(
        "z", tuple(heads), lambda x, context: x.new_zeros(()), f"scale {factor:g}", positions, strength=1 - factor
    )


def uniform(heads: Iterable[Head], positions: str | tuple[int, ...] = "all") -> Intervention:
    """The head looks everywhere alike: each row of its pattern becomes uniform over the keys it may see."""

    def uniform_rows(x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        assert context.visible is not None
        visible = context.visible.to(x.dtype).expand_as(x)
        return visible / visible.sum(-1, keepdim=True).clamp(min=1)

    return Intervention("pattern", tuple(heads), uniform_rows, "uniform", positions)


def _at_z(heads: Iterable[Head], replacement, label: str, positions: str | tuple[int, ...]) -> Intervention:
    return Intervention("z", tuple(heads), replacement, label, positions)
