"""What attention variants share: rows cut to some of their keys, rows normalised again, checks of options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from interp.interventions.intervention import HeadInputs, Intervention, InterventionContext, Memory, Positions

if TYPE_CHECKING:
    import torch

    from interp.heads import Head

FAINT = 1e-37
"""Added to every weight that is kept, so that a row without weight on the kept keys becomes uniform, not NaN."""


def keep_keys(x: torch.Tensor, kept: torch.Tensor, visible: torch.Tensor, sink_share: torch.Tensor | None) -> torch.Tensor:
    """Rows ``x`` [... key] on the kept keys alone, normalised again, beside the share of a learned sink if there is one; a row that loses
    no visible key stays, bit for bit.
    """
    kept = kept & visible
    weights = (x + FAINT) * kept
    cut = (visible & ~kept).any(-1, keepdim=True)
    total = weights.sum(-1, keepdim=True)
    if sink_share is not None:
        total = total + sink_share
    return (weights / total.clamp(min=FAINT)).where(cut, x)


def mask(
    heads: Iterable[Head], label: str, keep: Callable[[InterventionContext], torch.Tensor], positions: Positions, **fields: Any
) -> Intervention:
    """An intervention that keeps the keys where ``keep(context)``, which broadcasts to [batch query key], is True, in all heads alike."""

    def rows(x: torch.Tensor, at: InterventionContext) -> torch.Tensor:
        assert at.visible is not None
        return keep_keys(x, keep(at), at.visible, at.sink_share)

    return Intervention("pattern", tuple(heads), rows, label, positions, **{"alike": True, **fields})


def block_means(size: int) -> Callable[[HeadInputs, Memory], None]:
    """A preparation that keeps the mean key of each block of ``size`` tokens, [batch block d_head], as ``means``."""

    def prepare(inputs: HeadInputs, memory: Memory) -> None:
        k, tokens = inputs.k, inputs.token_mask[..., None]
        block = (inputs.key_positions.clamp(min=0) // size).expand(len(k), -1)[..., None]
        sums = k.new_zeros(len(k), int(block.max()) + 1, k.shape[-1]).scatter_add(1, block.expand_as(k), k * tokens)
        counts = k.new_zeros(sums[..., :1].shape).scatter_add(1, block, tokens.to(k).expand_as(block))
        memory["means"] = sums / counts.clamp(min=1)

    return prepare


def lags(context: InterventionContext) -> torch.Tensor:
    """Tokens from each key to each query, [batch query key]: negative for later keys."""
    assert context.keys is not None
    return context.positions[..., None] - context.keys[:, None]


def check_least(variant: str, least: int, **options: int) -> None:
    """Raises ValueError for an option below ``least``."""
    for name, value in options.items():
        if value < least:
            raise ValueError(f"{variant}: {name}={value} is too small: give at least {least}.")


def check_share(variant: str, **options: float) -> None:
    """Raises ValueError for an option outside 0 to 1."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{variant}: {name}={value:g} is not a share: give a number from 0 to 1.")


def uniform(positions: torch.Tensor, seed: int, part: int) -> torch.Tensor:
    """A number from 0 up to 1 for each position, the same in every block and batch: an integer hash of position, seed and ``part`` (a layer
    or a head)."""
    x = positions.clamp(min=0) + 1_000_003 * (seed + 1) + 7_919 * (part + 1)
    for factor in (0x45D9F3B, 0x45D9F3B):
        x = ((x >> 16) ^ x) * factor & 0xFFFFFFFF
    return ((x >> 16) ^ x).double() / 2**32
