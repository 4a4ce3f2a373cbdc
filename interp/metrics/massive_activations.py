"""Massive activations, entries of the residual stream in the hundreds and a thousand times the median (arXiv 2402.17762).

An entry ``x`` counts when ``|x| > min_magnitude`` and ``|x| >= ratio * median |x|``, the median over all tokens and
dimensions of the layer; the authors call these constants (100 and 1000) loose. The residual stream is read as it leaves each
block, unnormalised; folded or centred weights change its values.
"""

from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp._short_repr import short_repr
from interp.engine.attention.attention_observer import observe
from interp.engine.forward.residual_observer import reading_residual
from interp.models.model import Model
from interp.tasks.token_batch import Prompts, as_batch


@short_repr
@dataclass(eq=False)
class MassiveActivations:
    """Massive activations of texts whose tokens are ``token_mask`` [batch pos] (False for padding). ``entries`` are tuples
    (layer, example, pos, dimension, value, |value| / median); ``sizes`` holds the median and the largest |x| per layer. Layers
    are those of the block that the residual stream has just left."""

    token_mask: Bool[Tensor, "batch pos"]
    min_magnitude: float = 100.0
    ratio: float = 1000.0
    entries: list[tuple[int, int, int, int, float, float]] = field(default_factory=list)
    sizes: dict[int, tuple[float, float]] = field(default_factory=dict)

    def read(self, layer: int, x: Float[Tensor, "batch pos d_model"]) -> None:
        """Adds the residual stream after a layer."""
        size = x.detach().float().abs().masked_fill(~self.token_mask[..., None], 0)
        median = size[self.token_mask].median()
        self.sizes[layer] = float(median), float(size.max())
        massive = (size > self.min_magnitude) & (size >= self.ratio * median)
        values, ratios = x[massive].tolist(), (size[massive] / median).tolist()
        self.entries += [(layer, *at, *pair) for at, *pair in zip(massive.nonzero().tolist(), values, ratios, strict=True)]

    @property
    def onset(self) -> int | None:
        """The first layer with a massive activation."""
        return min((layer for layer, *_ in self.entries), default=None)

    def tokens(self, layer: int) -> Bool[Tensor, "batch pos"]:
        """Tokens with a massive activation after this layer, [batch pos]; none before the first layer (-1)."""
        marks = torch.zeros_like(self.token_mask)
        for own, example, pos, *_ in self.entries:
            marks[example, pos] |= own == layer
        return marks

    def to_dataframe(self) -> pd.DataFrame:
        """One row per massive activation: ``layer example pos dimension value ratio``."""
        kinds = {"layer": "int32", "example": "int32", "pos": "int32", "dimension": "int32", "value": float, "ratio": float}
        return pd.DataFrame(self.entries, columns=list(kinds)).astype(kinds)


def massive_activations(
    model: Model, prompts: Prompts, *, min_magnitude: float = 100.0, ratio: float = 1000.0
) -> MassiveActivations:
    """The massive activations of texts, given as for ``observe``, in one forward pass. Raises ValueError if the blocks of the
    model are not known."""
    activations = MassiveActivations(as_batch(model, prompts).token_mask, min_magnitude, ratio)
    with reading_residual(model, activations.read):
        observe(model, prompts, [])
    return activations
