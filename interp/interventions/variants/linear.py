"""Linear attention: weights are products of a feature map of query and key (Hedgehog, arXiv 2402.04347, compares such maps).

Query and key are multiplied by the square root of the head's scale first. ``exp`` is Hedgehog's map without its learned layer: ``exp(x)``
beside ``exp(-x)``; ``taylor`` is ``(1, x, x x^T / sqrt 2)``. There is no neutral setting.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention


def _map(feature, x):
    import torch

    if feature == "taylor":
        return torch.cat([torch.ones_like(x[..., :1]), x, (x[..., None] * x[..., None, :]).flatten(-2) / 2**0.5], -1)
    if feature == "exp":
        return torch.cat([x.exp(), (-x).exp()], -1)
    return torch.relu(x) if feature == "relu" else torch.nn.functional.elu(x) + 1


@intervention(source="Hedgehog, arXiv 2402.04347")
def linear(heads: Iterable[Head], feature: str = "elu", positions: Positions = "all") -> Intervention:
    """Weights become ``map(q) . map(k)``, divided by their sum, with a ``feature`` map elu (``elu(x) + 1``), relu, exp or taylor."""
    if feature not in ("elu", "relu", "exp", "taylor"):
        raise ValueError(f"linear: feature={feature!r} is not one of elu, relu, exp, taylor.")

    def rows(x, at):
        root = at.inputs.scale**0.5
        q, k = (_map(feature, part * root) for part in (at.inputs.q[:, at.query_slice], at.inputs.k[:, at.key_slice]))
        weights = ((q @ k.mT) + 1e-30) * at.visible
        return weights / weights.sum(-1, keepdim=True).clamp(min=1e-37)

    return Intervention("pattern", tuple(heads), rows, f"linear {feature}", positions, uses_inputs=True)
