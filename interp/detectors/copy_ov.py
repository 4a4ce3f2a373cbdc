"""Writes what it reads: looking at a token, the head raises the logit of this very token.

The full OV circuit of a head, ``W_E W_V W_O W_U``, says what each token does to each logit when it is looked at. Its score is the sum of
its eigenvalues over the sum of their sizes: 1 where all are positive (a token raises itself, or a group of tokens one another), -1 where
all are negative, near 0 where they point everywhere. The eigenvalues that are not 0 are those of the d_head x d_head product
``W_O (W_U W_E) W_V``; nothing of the size of the vocabulary squared is made.

Weights are the model's own: those of its norms are not folded in, and biases and MLPs are left out. W_U is centred: what it adds to
all logits alike changes no probability. Chance is not a wrong target here but the same head with a random rotation between its
values and its output; untrained weights are as likely one way as the other.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.null_threshold import null_threshold
from interp.engine.forward.run import record_of
from interp.engine.forward.z_cache import output_weights
from interp.engine.sweep.sweep import Progress
from interp.heads import HeadScores
from interp.models.model import Model

NOTHING = 1e-6
"""Eigenvalues that are smaller next to the factors of their matrix are rounding."""


@detector(quick=True)
def copy_ov(
    model: Model, *, n_null_draws: int = 19, rate: float = 0.05, seed: int = 0, progress: Progress | None = None
) -> Detection:
    """Heads by ``sum Re(eigenvalue) / sum |eigenvalue|`` of their full OV circuit, -1 to 1; those that copy are near 1, those that write
    against what they read near -1 and never found. No paper gives a threshold; the score is Elhage et al.'s of 2021, as recalled.

    In 5% (``rate``) of untrained models at least one head lies above the threshold. A head that writes nothing that the unembedding
    reads has no number. ``n_null_draws`` are made of every head, each at the cost of its eigenvalues; 19 are the fewest for 5%. Raises
    ValueError for an encoder, for fewer rotations than the rate needs, and when no head has a number.
    """
    model.facts.check_causal("The copying score")
    with torch.inference_mode():
        found = _scores(model, n_null_draws, seed, progress)
    if np.isnan(found[0]).all():
        raise ValueError(f"No head of {model.facts.name} writes anything that the unembedding reads: none of them can copy.")
    threshold, true_rate, chance = null_threshold(found[1:], rate)
    sizes = {"n_null_draws": n_null_draws}
    record = record_of(model, arguments=sizes, metric="ov_copying", seed=seed)
    scores, control = (
        HeadScores(name, values, "share", (-1.0, 1.0), record, nan_reason="it writes nothing that the unembedding reads")
        for name, values in (("ov_copying", found[0]), ("rotated", chance))
    )
    return Detection("copy_ov", scores, control, threshold, true_rate, details=sizes)


def _scores(
    model: Model, n_null_draws: int, seed: int, progress: Progress | None
) -> Float[np.ndarray, "n_scores n_layers n_heads"]:
    """Scores of the heads as they are, and then of each rotation."""
    facts, bridge = model.facts, model.bridge
    w_e, w_u = bridge.W_E.float(), bridge.W_U.float()
    through = ((w_u - w_u.mean(1, keepdim=True)) @ w_e).double()
    draw = torch.Generator().manual_seed(seed)
    found = np.empty((1 + n_null_draws, facts.n_layers, facts.n_heads))
    for layer in range(facts.n_layers):
        w_v = bridge.blocks[layer].attn.W_V.double().repeat_interleave(facts.group_size, 0)
        parts = w_v, through, output_weights(model, layer).double()
        found[0, layer] = copying(*parts).cpu()
        for at in range(n_null_draws):
            turns = rotations(facts.n_heads, facts.d_head, draw).to(through.device)
            found[1 + at, layer] = copying(*parts, turns).cpu()
        if progress:
            progress(layer + 1, facts.n_layers)
    return found


def rotations(n: int, size: int, draw: torch.Generator) -> Float[Tensor, "n size size"]:
    """Random orthogonal matrices, all alike likely."""
    q, r = torch.linalg.qr(torch.randn(n, size, size, generator=draw, dtype=torch.double))
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]


def copying(
    w_v: Float[Tensor, "head d_model d_head"],
    through: Float[Tensor, "d_model d_model"],
    w_o: Float[Tensor, "head d_head d_model"],
    turns: Float[Tensor, "head d_head d_head"] | None = None,
) -> Float[Tensor, " head"]:
    """Sum of the eigenvalues over the sum of their sizes, of ``turns W_O through W_V``; NaN where they are no more than rounding."""
    circuit = w_o @ through @ w_v
    values = torch.linalg.eigvals(circuit if turns is None else turns @ circuit)
    total = values.abs().sum(-1)
    scale = through.norm() * torch.stack([w.norm(dim=(1, 2)) for w in (w_v, w_o)]).prod(0)
    return (values.real.sum(-1) / total).masked_fill(total <= NOTHING * scale, torch.nan)
