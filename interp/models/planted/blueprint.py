"""The specification of a planted model: recipes of its heads, residual coordinates, and noise heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interp.heads import Head
from interp.models.planted.residual_coordinates import ResidualCoordinates
from interp.models.planted.roles import Recipe


@dataclass(frozen=True)
class Sizes:
    """The sizes of a host; without ``n_kv_heads`` it is a GPT-2, with it a Llama."""

    n_layers: int
    n_heads: int
    n_kv_heads: int | None
    d_head: int
    d_model: int

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // (self.n_kv_heads or self.n_heads)


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A planted model before it is built.

    Noise heads have scores of standard deviation ``noise_scores`` and an output of norm ``noise_writes`` relative to a token's own
    direction, ``noise_everywhere`` or only in coordinates that nothing reads. The MLP of ``massive_layer`` writes the massive activation.
    """

    heads: Mapping[Head, Recipe]
    space: ResidualCoordinates
    sharpness: float
    sizes: Sizes
    noise_scores: float
    noise_writes: float
    noise_everywhere: bool
    massive_layer: int | None
