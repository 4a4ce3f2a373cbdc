"""The direction in the residual stream that the outcome reads: a component's direct contribution is its output along it."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.engine.attention.attention_interface import upcast
from interp.engine.sweep.outcome import Answers, Outcome
from interp.engine.sweep.readout import Readout
from interp.models.model import Model
from interp.models.value_and_output_weights import unembed_bias, unembed_rows
from interp.tasks.task import Example


def answer_direction(
    model: Model, examples: Sequence[Example], outcome: Outcome, last: Float[Tensor, "batch d_model"]
) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
    """A direction and a constant per example with ``outcome = last . direction + constant``, at the final norm's scale for the
    residual ``last``. The outcome must be a weighted sum of logits.

    Raises ValueError where logits are not linear in it (a softcap, a final norm that is neither a layer norm nor an RMS norm).
    """
    assert outcome.weights is not None
    _, layout = model.known_parts
    last = upcast(last)
    norm = deepcopy(layout.final_norm).to(last.dtype)  # so that rounding cannot hide a softcap
    answers = Answers.of(examples, last.device)
    ids = torch.cat([answers.answers, answers.distractors], -1)
    weights = torch.cat(outcome.weights(answers), -1).to(last.dtype)
    read = torch.einsum("bk,bkd->bd", weights, upcast(unembed_rows(layout, ids)))
    offset, gains = _gains(norm, last)
    direction = _centred(norm, gains * read)
    constant = (offset * read).sum(-1)
    if (bias := unembed_bias(layout, ids)) is not None:
        constant = constant + (weights * upcast(bias)).sum(-1)
    readout = Readout(model, examples, outcome, torch.empty(0, device=last.device))
    readout.final_norm = norm
    terms = (last.abs() * direction.abs()).sum(-1) + constant.abs()
    if not bool(((last * direction).sum(-1) + constant - readout(last[None])[0]).abs().le(1e-5 * terms + 1e-5).all()):
        raise ValueError(
            f"{outcome.name} of {model.facts.name} is not a sum over components: {model.facts.architecture} caps its logits or has "
            f"an unknown final norm. Patch or ablate heads instead."
        )
    return direction, constant


def _gains(
    norm: nn.Module, at: Float[Tensor, "batch d_model"]
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, "batch d_model"]]:
    """The norm's offset, and its factor for each coordinate at the scale of ``at``. Both are measured on a vector without small
    coordinates, independent of how an architecture stores its weights."""
    offset = norm(at.new_zeros(1, at.shape[-1]))[0]
    probe = at.new_ones(1, at.shape[-1])
    probe[:, ::2] = -1
    weight = (norm(probe) - offset) / _centred(norm, probe)
    shape = weight * _centred(norm, at)
    scale = ((norm(at) - offset) * shape).sum(-1, keepdim=True) / shape.square().sum(-1, keepdim=True)
    return offset, weight * scale


def _centred(norm: nn.Module, x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
