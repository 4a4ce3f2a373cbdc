"""Scatterbrain (arXiv 2110.15343): low-rank attention by random features, with the largest entries exact.

Weights of the ``k`` largest keys of a row are ``exp(score)``; all others are products of ``n_features`` positive random features of query
and key (Performer's), whose expectation is the same. The paper finds the large entries by hashing; here they are the true ones. ``k=0``
is low-rank attention alone.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least


@intervention(source="Scatterbrain, arXiv 2110.15343", neutral={"k": 1 << 30})
def scatterbrain(
    heads: Iterable[Head], k: int = 16, n_features: int = 64, seed: int = 0, positions: Positions = "all"
) -> Intervention:
    """The head attends exactly to its ``k`` largest keys and through ``n_features`` random features to the others."""
    check_least("scatterbrain", 0, k=k, seed=seed)
    check_least("scatterbrain", 1, n_features=n_features)

    def scores(s, at):
        import torch

        if k >= s.shape[-1]:
            return s
        root = at.inputs.scale**0.5
        q, keys = at.inputs.q[:, at.query_slice] * root, at.inputs.k[:, at.key_slice] * root
        draw = torch.Generator().manual_seed(seed)
        directions = torch.randn(q.shape[-1], n_features, generator=draw).to(q)
        logs = [x @ directions - (x * x).sum(-1, keepdim=True) / 2 for x in (q, keys)]
        largest = [x.amax(-1, keepdim=True) for x in logs]
        features = [(x - top).exp() for x, top in zip(logs, largest, strict=True)]
        low = ((features[0] @ features[1].mT) / n_features).clamp(min=1e-37).log() + largest[0] + largest[1].mT
        exact = s >= s.topk(k, -1).values[..., -1:] if k else torch.zeros_like(s, dtype=torch.bool)
        return s.where(exact, low)

    label = f"scatterbrain {k}+{n_features} seed {seed}"
    return Intervention("scores", tuple(heads), scores, label, positions, uses_inputs=True)
