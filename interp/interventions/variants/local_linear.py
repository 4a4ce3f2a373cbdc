"""Local linear attention (arXiv 2510.01450): a local linear regression of values on keys at the query, in place of their weighted mean.

With weights x, mean key m and covariance C of a row, key j weighs ``x_j (1 + (q - m) (C + ridge)^-1 (k_j - m))``: rows still sum to 1 and
may be negative. Values that are linear in the keys are then exact, where a weighted mean is biased. A large ``ridge`` returns to softmax.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import FAINT

KEYS = 1024
"""Keys whose outer products are in memory at once."""


@intervention(source="Local Linear Attention, arXiv 2510.01450", neutral={"ridge": float("inf")})
def local_linear(heads: Iterable[Head], ridge: float = 1.0, positions: Positions = "all") -> Intervention:
    """Weights become those of a local linear estimate with this ``ridge`` (in squared units of keys)."""
    if not ridge > 0:
        raise ValueError(f"local_linear: ridge={ridge:g} is not positive: give inf for the unchanged head.")

    def rows(x, at):
        import torch

        if ridge == float("inf"):
            return x
        q, k = at.inputs.q[:, at.query_slice], at.inputs.k[:, at.key_slice]
        total = x.sum(-1, keepdim=True).clamp(min=FAINT)  # below 1 beside a learned sink
        mean = x @ k / total
        moment = x.new_zeros(*x.shape[:2], k.shape[-1] ** 2)
        for part in (slice(i, i + KEYS) for i in range(0, k.shape[1], KEYS)):
            moment += x[..., part] @ (k[:, part, :, None] * k[:, part, None]).flatten(2)
        moment = moment / total
        spread = moment.unflatten(-1, (k.shape[-1],) * 2) - mean[..., None] * mean[..., None, :]
        spread = spread + ridge * torch.eye(k.shape[-1]).to(x)
        slope = torch.linalg.solve(spread, q - mean)
        return x * (1 + slope @ k.mT - (slope * mean).sum(-1, keepdim=True))

    return Intervention("pattern", tuple(heads), rows, f"local linear {ridge:g}", positions, uses_inputs=True)
