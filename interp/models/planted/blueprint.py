"""What is to be built: recipes at their places, the space they are written in, and the heads of noise around them."""

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


@dataclass(frozen=True)
class Noise:
    """Heads of random noise: the standard deviation of their ``scores``, the length of what they write next to that of a token's own
    direction, and whether they write ``everywhere`` or only where nobody reads."""

    scores: float
    writes: float
    everywhere: bool


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A model to be built; ``neuron`` is the layer whose MLP writes the massive activation, if one is wanted."""

    heads: Mapping[Head, Recipe]
    space: ResidualCoordinates
    sharpness: float
    sizes: Sizes
    noise: Noise
    neuron: int | None
