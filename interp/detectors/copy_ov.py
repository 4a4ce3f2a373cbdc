"""Copying heads by their OV circuit, which raises the logit of whichever token is attended to.

The full OV circuit ``W_E W_V W_O W_U`` maps each attended token to its effect on every logit. The score is the sum of its
eigenvalues over the sum of their magnitudes: 1 where all are positive (tokens raise themselves or each other), -1 where all
are negative, near 0 where they point in all directions. The nonzero eigenvalues are those of the d_head x d_head product
``W_O (W_U W_E) W_V``, so no vocabulary-sized matrix is formed.

Norm weights are not folded in; biases and MLPs are left out. W_U is centred, since a shift of all logits changes no
probability. The null inserts a random rotation between values and output, under which untrained weights are equally likely.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.null_threshold import null_threshold
from interp.engine.sweep.sweep import Progress
from interp.heads import HeadScores
from interp.models.model import Model, record_of
from interp.models.value_and_output_weights import output_weights, value_weights

ROUNDING = 1e-6
"""Eigenvalues smaller than this, relative to the factors of their matrix, are rounding errors."""


@detector(quick=True)
def copy_ov(
    model: Model, *, n_null_draws: int = 19, fwer: float = 0.05, seed: int = 0, progress: Progress | None = None
) -> Detection:
    """Heads by ``sum Re(eigenvalue) / sum |eigenvalue|`` of their full OV circuit, -1 to 1; copying heads are near 1.

    No paper gives a threshold; the score follows Elhage et al. 2021 (from memory). A head that writes nothing the unembedding
    reads has no score. Each of the ``n_null_draws`` rotations costs one eigenvalue problem per head; fwer=0.05 needs 19.
    Raises ValueError for an encoder, for too few draws, and when no head has a score.
    """
    model.facts.check_causal("The copying score")
    with torch.inference_mode():
        scores = _scores(model, n_null_draws, seed, progress)
    if np.isnan(scores[0]).all():
        raise ValueError(f"No head of {model.facts.name} writes to the unembedding: the copying score is undefined.")
    threshold, actual_fwer, null_mean = null_threshold(scores[0], scores[1:], fwer)
    sizes = {"n_null_draws": n_null_draws}
    record = record_of(model, arguments=sizes, metric="ov_copying", seed=seed)
    reason = "the head writes nothing the unembedding reads"
    observed = HeadScores("ov_copying", scores[0], "share", (-1.0, 1.0), record, reason)
    control = HeadScores("rotated", null_mean, "share", (-1.0, 1.0), record, reason)
    return Detection("copy_ov", observed, control, threshold, actual_fwer, details=sizes)


def _scores(
    model: Model, n_null_draws: int, seed: int, progress: Progress | None
) -> Float[np.ndarray, "n_scores n_layers n_heads"]:
    """The observed scores, followed by those of each null draw."""
    facts, bridge = model.facts, model.bridge
    w_e, w_u = bridge.W_E.float(), bridge.W_U.float()
    unembed_embed = ((w_u - w_u.mean(1, keepdim=True)) @ w_e).double()
    generator = torch.Generator().manual_seed(seed)
    scores = np.empty((1 + n_null_draws, facts.n_layers, facts.n_heads))
    for layer in range(facts.n_layers):
        w_v = value_weights(model, layer).double()
        weights = w_v, unembed_embed, output_weights(model, layer).double()
        scores[0, layer] = copying(*weights).cpu()
        for draw in range(n_null_draws):
            rotation = rotations(facts.n_heads, facts.d_head, generator).to(unembed_embed.device)
            scores[1 + draw, layer] = copying(*weights, rotation).cpu()
        if progress:
            progress(layer + 1, facts.n_layers)
    return scores


def rotations(n: int, size: int, generator: torch.Generator) -> Float[Tensor, "n size size"]:
    """Random orthogonal matrices, uniform over the group."""
    q, r = torch.linalg.qr(torch.randn(n, size, size, generator=generator, dtype=torch.double))
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]


def copying(
    w_v: Float[Tensor, "head d_model d_head"],
    unembed_embed: Float[Tensor, "d_model d_model"],
    w_o: Float[Tensor, "head d_head d_model"],
    rotation: Float[Tensor, "head d_head d_head"] | None = None,
) -> Float[Tensor, " head"]:
    """Sum of the eigenvalues of ``rotation W_O unembed_embed W_V`` over the sum of their magnitudes; NaN where all are rounding."""
    circuit = w_o @ unembed_embed @ w_v
    values = torch.linalg.eigvals(circuit if rotation is None else rotation @ circuit)
    total = values.abs().sum(-1)
    scale = unembed_embed.norm() * torch.stack([w.norm(dim=(1, 2)) for w in (w_v, w_o)]).prod(0)
    return (values.real.sum(-1) / total).masked_fill(total <= ROUNDING * scale, torch.nan)
