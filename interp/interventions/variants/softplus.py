"""Softplus attention (arXiv 2501.13428): weights are softplus of the scores, divided by their sum, and not their exponentials.

The published scores are also scaled by the logarithm of the length: ``length_scale`` multiplies them by ``log(n) / log(length_scale)``
where ``n`` tokens are visible (0: not at all). There is no neutral setting: the form itself is the change; ``strength`` mixes the scores.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention


@intervention(source="Softplus Attention with Re-weighting, arXiv 2501.13428")
def softplus(
    heads: Iterable[Head], exponent: float = 1.0, length_scale: float = 0.0, positions: Positions = "all"
) -> Intervention:
    """Weights become ``softplus(score) ** exponent``, divided by their sum; ``length_scale``: see above."""
    if not exponent > 0 or length_scale < 0 or length_scale == 1:
        raise ValueError(f"softplus: exponent={exponent:g} must be positive and length_scale={length_scale:g} 0 or above 1.")

    def scores(s, at):
        import torch

        if length_scale:
            s = s * at.visible.sum(-1, keepdim=True).log() / torch.tensor(length_scale).log()
        return exponent * torch.nn.functional.softplus(s).clamp(min=1e-37).log()

    return Intervention("scores", tuple(heads), scores, f"softplus {exponent:g}", positions, alike=True)
