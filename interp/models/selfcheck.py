"""The self-check of a model: identities that every later number relies on, each measured on a few random tokens.

A check that fails or cannot be computed is reported with its reason and never raised; what depends on it can then be refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from interp.models.facts import reads_images
from interp.models.model import Model
from interp.models.transformer_lens_bridge import copy_with_shared_weights

RELATIVE = {"float64": 1e-10, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Check:
    """One identity: its largest error, in the units of the compared values, and the tolerance. ``passed`` is None where the
    identity does not apply, ``error`` is None where nothing could be measured; ``note`` then says why."""

    name: str
    error: float | None
    tolerance: float
    passed: bool | None
    note: str = ""


class _NotApplicable(Exception):
    """The identity does not apply to this model; the message is the reason."""


def doctor(model: Model, *, seed: int = 0) -> list[Check]:
    """All checks of ``model``, in a fixed order. A model is sound when no check has ``passed=False``."""
    with model.lock, torch.no_grad():
        run = _SelfCheck(model, seed)
        return [run.measure(name) for name in CHECKS]


class _SelfCheck:
    """The checks, each a method that returns error, scale and note, on one pass over random tokens [2, 12] or two random images."""

    def __init__(self, model: Model, seed: int) -> None:
        self.model, self.facts, self.seed = model, model.facts, seed

    @cached_property
    def inputs(self) -> Any:
        length = min(12, self.facts.max_length or 12)
        draw = torch.Generator().manual_seed(self.seed)
        if self.model.hf is not None and reads_images(self.model.hf):
            config: Any = self.model.hf.config
            size = config.image_size if not isinstance(config.image_size, int) else (config.image_size,) * 2
            return torch.randn(2, config.num_channels, *size, generator=draw).to(self.model.device, self.model.dtype)
        return torch.randint(self.facts.d_vocab, (2, length), generator=draw).to(self.model.device)

    @cached_property
    def bridged(self) -> tuple[Any, Any]:
        """Logits and cache of the bridge."""
        return self.model.bridge.run_with_cache(self.inputs)

    @cached_property
    def eager_logits(self) -> Any:
        """Logits of the Hugging Face module with eager attention."""
        if self.model.hf is None:
            raise _NotApplicable("not a Hugging Face model: no reference to compare with")
        plain = copy_with_shared_weights(self.model.hf)
        plain.set_attn_implementation("eager")
        return plain(self.inputs).logits

    def layers(self, *names: str) -> Iterator[list[Any]]:
        """For each layer, the activations ``names`` in at least float32; zeros for the MLP of an attention-only model."""
        cache = self.bridged[1]
        for layer in range(self.facts.n_layers):
            before = cache[f"blocks.{layer}.hook_resid_pre"]
            without_mlp = {f"blocks.{layer}.hook_mlp_out": before * 0} if self.facts.d_mlp == 0 else {}
            yield [_precise({**cache, **without_mlp}[f"blocks.{layer}.{name}"]) for name in names]

    def measure(self, name: str) -> Check:
        try:
            error, scale, note = CHECKS[name](self)
        except _NotApplicable as reason:
            return Check(name, None, 0.0, None, str(reason))
        except Exception as error:  # a check must never hide the others
            return Check(name, None, 0.0, False, f"could not be measured: {type(error).__name__}: {error}")
        tolerance = scale * RELATIVE[self.facts.dtype]
        return Check(name, error, tolerance, error <= tolerance, note)

    def weights_finite(self) -> tuple[float, float, str]:
        module = self.model.hf or self.model.bridge
        bad = {name: int((~torch.isfinite(p)).sum()) for name, p in module.named_parameters()}
        first = next((name for name, count in bad.items() if count), "")
        return float(sum(bad.values())), 0.0, f"NaN or infinite values, first in {first}" if first else ""

    def logits_equal_hugging_face(self) -> tuple[float, float, str]:
        return _gap(self.bridged[0], self.eager_logits)

    def pattern_rows_sum_to_one(self) -> tuple[float, float, str]:
        return max(float((pattern.sum(-1) - 1).abs().max()) for [pattern] in self.layers("attn.hook_pattern")), 1.0, ""

    def pattern_is_causal(self) -> tuple[float, float, str]:
        if not self.facts.causal:
            raise _NotApplicable("attention is bidirectional")
        length, worst = self.inputs.shape[1], 0.0
        distance = torch.arange(length)[:, None] - torch.arange(length)
        for [pattern], window in zip(self.layers("attn.hook_pattern"), self.facts.sliding_windows, strict=True):
            hidden = (distance < 0) | (distance >= (window or length))
            worst = max(worst, float(pattern[:, :, hidden.to(pattern.device)].abs().max()))
        return worst, 0.0, ""

    def pattern_times_v_is_z(self) -> tuple[float, float, str]:
        gaps = []
        for pattern, v, z in self.layers("attn.hook_pattern", "attn.hook_v", "attn.hook_z"):
            mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, v.repeat_interleave(pattern.shape[1] // v.shape[2], dim=2))
            gaps.append(_gap(mixed, z.view_as(mixed)))
        return max(gaps)

    def residual_adds_up(self) -> tuple[float, float, str]:
        hf = self.model.hf
        if hf is not None and any("attention.output.LayerNorm" in name for name, _ in hf.named_parameters()):
            raise _NotApplicable("norms follow the additions, as in BERT")
        names = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
        return max(_gap(before + attention + mlp, after) for before, attention, mlp, after in self.layers(*names))

    def layout_gives_logits(self) -> tuple[float, float, str]:
        """The last residual through the layout's final norm and unembedding."""
        layout, hf = self.model.layout, self.model.hf
        if not self.facts.causal:
            raise _NotApplicable("an encoder is only observed, never resumed from a layer")
        if layout is None or hf is None:
            raise _NotApplicable("the layout of this architecture is not known: exact sweeps use hooked forward passes")
        [last] = list(self.layers("hook_resid_post"))[-1]
        logits = layout.unembed(layout.final_norm(last.to(self.model.dtype)))
        cap = getattr(hf.config, "final_logit_softcapping", None)
        return _gap(torch.tanh(logits / cap) * cap if cap else logits, self.eager_logits)

    def tokenizer_round_trip(self) -> tuple[float, float, str]:
        """Number of tokens that differ after decoding a text and encoding it again."""
        text, ids = self._sample_text()
        again = self.model.to_tokens_without_special(text)
        wrong = abs(len(again) - len(ids)) + sum(a != b for a, b in zip(again, ids, strict=False))
        return float(wrong), 0.0, f"{text!r} becomes {self.model.to_string(again)!r}" if wrong else ""

    def bos_as_stated(self) -> tuple[float, float, str]:
        """Difference between the number of BOS tokens of a prompt and the number that the facts state."""
        if self.model.hf is not None and not self.facts.causal:
            raise _NotApplicable("an encoder's tokenizer adds its own special tokens")
        text, _ = self._sample_text()
        wanted, bos = int(self.facts.prepend_bos), self.facts.bos_token_id
        found = self.model.to_tokens(text).count(bos) if bos is not None else 0
        return float(abs(found - wanted)), 0.0, f"{found} BOS tokens where the facts state {wanted}" if found != wanted else ""

    def _sample_text(self) -> tuple[str, list[int]]:
        """A text that is stable under decoding, and its tokens: the decoding of a few ordinary tokens, read once."""
        if self.model.tokenizer is None:
            raise _NotApplicable("loaded without a tokenizer")
        special = set(self.model.tokenizer.all_special_ids)
        ordinary = [i for i in range(min(self.facts.d_vocab, len(self.model.tokenizer))) if i not in special]
        text = self.model.to_string(ordinary[:: max(1, len(ordinary) // 6)][:6])
        ids = self.model.to_tokens_without_special(text)
        return self.model.to_string(ids), ids


_NAMES = """weights_finite logits_equal_hugging_face pattern_rows_sum_to_one pattern_is_causal pattern_times_v_is_z
residual_adds_up layout_gives_logits tokenizer_round_trip bos_as_stated""".split()
CHECKS = {name: getattr(_SelfCheck, name) for name in _NAMES}


def _precise(tensor: Any) -> Any:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _gap(found: Any, wanted: Any) -> tuple[float, float, str]:
    """Largest absolute difference, the scale of what is compared (at least 1), and no note."""
    return float((_precise(found) - _precise(wanted)).abs().max()), max(1.0, float(wanted.abs().max())), ""
