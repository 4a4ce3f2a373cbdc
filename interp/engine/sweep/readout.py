"""From the final residual to the outcome, computing only the logits that the outcome needs."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.engine.attention.attention_interface import apply_softcap, upcast
from interp.engine.sweep.outcome import Answers, Outcome
from interp.errors import FastPathUnavailable
from interp.models.model import Model
from interp.models.plain_model_reference import rounding
from interp.models.value_and_output_weights import unembed_bias, unembed_rows
from interp.tasks.task import Example

BLOCK = 1 << 24  # logits in memory at once


def logits_of(
    model: Model, residual: Float[Tensor, "*batch d_model"], norm: nn.Module | None = None
) -> Float[Tensor, "*batch d_vocab"]:
    """All logits in float32 (float64 where the model is); ``norm`` stands for the final norm."""
    hf, layout = model.known_parts
    unembedded = upcast(layout.unembed((norm or layout.final_norm)(residual))) * layout.logit_scale
    return apply_softcap(unembedded, _softcap(hf))


def _softcap(hf: Any) -> float | None:
    return getattr(hf.config.get_text_config(), "final_logit_softcapping", None)


class Readout:
    """Maps the final residuals of one batch of examples to outcomes."""

    def __init__(self, model: Model, examples: Sequence[Example], outcome: Outcome, clean_logits: Tensor) -> None:
        hf, self.layout = model.known_parts
        self.model, self.outcome, self.clean_logits = model, outcome, upcast(clean_logits)
        self.answers = Answers.of(examples, clean_logits.device)
        self.final_norm, self.softcap = self.layout.final_norm, _softcap(hf)

    def verify(self, residual: Float[Tensor, "batch *n_tokens d_model"]) -> None:
        """Raises FastPathUnavailable unless a linear outcome, read from residuals like these, is that of their logits."""
        if self.outcome.weights is None:
            return
        noise = torch.randn(residual.shape, generator=torch.Generator().manual_seed(0)).to(residual)
        noisy = residual + noise * residual.std(-1, keepdim=True)  # the prompts' own logits may cancel
        logits = logits_of(self.model, noisy)
        error = self(noisy[None])[0] - self.outcome.function(logits, self.answers, self.clean_logits)
        if (error.abs() > 8 * rounding(self.model.dtype) * logits.std(-1)).any():
            name = self.model.facts.architecture
            raise FastPathUnavailable(f"{name}: {self.outcome.name} of a resumed run is not that of its logits")

    def logits(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """All logits in float32 (float64 where the model is)."""
        return logits_of(self.model, residual, self.final_norm)

    def __call__(self, residual: Float[Tensor, "n_variants batch *n_tokens d_model"]) -> Float[Tensor, "n_variants batch"]:
        """The outcome of every residual, or of those of all tokens of an answer."""
        if self.outcome.weights is not None:
            return self._weighted(residual)
        step = max(1, BLOCK // self.clean_logits.numel())
        return torch.cat([self._full(part) for part in residual.split(step)])

    def _weighted(self, residual: Tensor) -> Tensor:
        assert self.outcome.weights is not None
        ids = torch.cat([self.answers.answers, self.answers.distractors], -1)
        weights = torch.cat(self.outcome.weights(self.answers), -1)
        rows, bias = unembed_rows(self.layout, ids), unembed_bias(self.layout, ids)
        logits = torch.einsum("vbd,bkd->vbk", upcast(self.final_norm(residual)), upcast(rows))
        return (apply_softcap(logits if bias is None else logits + upcast(bias), self.softcap) * weights).sum(-1)

    def _full(self, residual: Tensor) -> Tensor:
        n = len(residual)
        logits = self.logits(residual.flatten(0, 1))
        clean = self.clean_logits.repeat(n, *[1] * (self.clean_logits.dim() - 1))
        return self.outcome.of_logits(logits, self.answers.repeat(n), clean).unflatten(0, (n, -1))
