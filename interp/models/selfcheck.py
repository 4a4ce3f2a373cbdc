"""The self-check of a model: identities that every later number relies on, each measured on a few random tokens.

A check that fails or cannot be computed is reported with its reason and never raised; what depends on it can then be refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp.errors import first_line
from interp.models.model import Model
from interp.models.plain_model_reference import explained_error, plain_copy, relative_error, rounding
from interp.models.quantisation_method_and_tensors import weight_tensors
from interp.models.read_facts import reads_images
from interp.models.wrap_model import count_non_finite

ROUNDINGS = 8  # of single additions and products; what follows many of them is bounded in plain_model
Measured = tuple[Tensor | float, Tensor | float, str]


@dataclass(frozen=True)
class Check:
    """One identity: its error and the tolerance at the position where the first is the largest part of the second, relative to the
    largest value that is added or compared there. ``passed`` is None where the identity does not apply, ``error`` is None where
    nothing could be measured; ``note`` then says why."""

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
    """The checks, on one pass over random tokens [2, 12] or two random images: each returns errors by position, tolerance and note."""

    def __init__(self, model: Model, seed: int) -> None:
        self.model, self.facts, self.seed = model, model.facts, seed
        self.roundings = ROUNDINGS * torch.finfo(model.dtype).eps

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
    def eager(self) -> Any:
        """The Hugging Face module with eager attention."""
        if self.model.hf is None:
            raise _NotApplicable("not a Hugging Face model: no reference to compare with")
        plain = plain_copy(self.model)
        plain.set_attn_implementation("eager")
        return plain

    def layers(self, *names: str) -> Iterator[list[Any]]:
        """For each layer, the activations ``names`` in at least float32; zeros for the MLP of an attention-only model."""
        cache = self.bridged[1]
        for layer in range(self.facts.n_layers):
            before = cache[f"blocks.{layer}.hook_resid_pre"]
            without_mlp = {f"blocks.{layer}.hook_mlp_out": before * 0} if self.facts.d_mlp == 0 else {}
            yield [_precise({**cache, **without_mlp}[f"blocks.{layer}.{name}"]) for name in names]

    def measure(self, name: str) -> Check:
        try:
            found, tolerances, note = CHECKS[name](self)
        except _NotApplicable as reason:
            return Check(name, None, 0.0, None, str(reason))
        except Exception as error:  # a check must never hide the others
            return Check(name, None, 0.0, False, f"could not be measured: {type(error).__name__}: {first_line(error)}")
        errors = torch.as_tensor(found)
        tolerances = torch.as_tensor(tolerances).to(errors).expand_as(errors)
        worst = (errors / tolerances.clamp(min=torch.finfo(errors.dtype).tiny)).argmax()  # a NaN is the largest
        error, tolerance = float(errors.flatten()[worst]), float(tolerances.flatten()[worst])
        return Check(name, error, tolerance, error <= tolerance, note)

    def weights_finite(self) -> Measured:
        module = self.model.hf or self.model.bridge
        floating = {name: weight for name, weight in weight_tensors(module) if weight.is_floating_point()}
        bad = {name: count_non_finite(weight) for name, weight in floating.items()}
        first = next((name for name, count in bad.items() if count), "")
        return float(sum(bad.values())), 0.0, f"NaN or infinite values, first in {first}" if first else ""

    def logits_equal_hugging_face(self) -> Measured:
        return self.against_eager(self.bridged[0])

    def pattern_rows_sum_to_one(self) -> Measured:
        if self.model.hf is not None and any(name.endswith(".sinks") for name, _ in self.model.hf.named_parameters()):
            raise _NotApplicable("a learned sink takes part of every row")
        sums = torch.stack([pattern.sum(-1) for [pattern] in self.layers("attn.hook_pattern")])
        tolerance = max(self.roundings, ROUNDINGS * torch.finfo(torch.float32).eps)  # softmax is often in float32
        return (sums - 1).abs(), tolerance, ""

    def pattern_is_causal(self) -> Measured:
        if not self.facts.causal:
            raise _NotApplicable("attention is bidirectional")
        length, worst = self.inputs.shape[1], []
        distance = torch.arange(length)[:, None] - torch.arange(length)
        for [pattern], window in zip(self.layers("attn.hook_pattern"), self.facts.sliding_windows, strict=True):
            hidden = (distance < 0) | (distance >= (window or length))
            worst.append(pattern[:, :, hidden.to(pattern.device)].abs().max())
        return torch.stack(worst), 0.0, ""

    def pattern_times_v_is_z(self) -> Measured:
        clip = None if self.model.hf is None else getattr(self.model.hf.config, "clip_qkv", None)
        gaps = []
        for pattern, v, z in self.layers("attn.hook_pattern", "attn.hook_v", "attn.hook_z"):
            v = v if clip is None else v.clamp(-clip, clip)  # after the hook, in OLMo
            v = v.repeat_interleave(pattern.shape[1] // v.shape[2], dim=2)
            mixed, terms = (torch.einsum("bhqk,bkhd->bqhd", pattern, values) for values in (v, v.abs()))
            gaps.append(self.gap(mixed, z.view_as(mixed), terms.amax(-1)))
        return torch.stack(gaps), self.roundings, ""

    def residual_adds_up(self) -> Measured:
        hf = self.model.hf
        if hf is not None and any("attention.output.LayerNorm" in name for name, _ in hf.named_parameters()):
            raise _NotApplicable("norms follow the additions, as in BERT")
        if hf is not None and getattr(hf.config, "do_layer_norm_before", None) is False:
            raise _NotApplicable("norms follow the additions, as in OPT-350M")
        names, gaps = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"), []
        for before, attention, mlp, after in self.layers(*names):
            terms = torch.stack([before, attention, mlp]).abs().amax((0, -1))
            gaps.append(self.gap(before + attention + mlp, after, terms))
        return torch.stack(gaps), self.roundings, ""

    def layout_gives_logits(self) -> Measured:
        """The last residual through the layout's final norm and unembedding."""
        layout, hf = self.model.layout, self.model.hf
        if not self.facts.causal:
            raise _NotApplicable("an encoder is only observed, never resumed from a layer")
        if layout is None or hf is None:
            raise _NotApplicable("the layout of this architecture is not known: exact sweeps use hooked forward passes")
        [last] = list(self.layers("hook_resid_post"))[-1]
        logits = layout.unembed(layout.final_norm(last.to(self.model.dtype))) * layout.logit_scale
        cap = getattr(hf.config, "final_logit_softcapping", None)
        return self.against_eager(torch.tanh(logits / cap) * cap if cap else logits)

    def against_eager(self, found: Tensor) -> Measured:
        """Logits against those of the Hugging Face module, with what rounding explains of their difference."""
        wanted = self.eager(self.inputs).logits
        images = reads_images(self.eager)
        tolerance = rounding(wanted.dtype) if images else explained_error(self.eager, self.inputs, wanted)
        return relative_error(found, wanted), tolerance, ""

    def gap(self, found: Tensor, wanted: Tensor, largest: Tensor) -> Tensor:
        """The largest difference at each position, relative to the ``largest`` value that was added there."""
        return (found - wanted).abs().amax(-1) / largest.clamp(min=torch.finfo(self.model.dtype).tiny)

    def tokenizer_round_trip(self) -> Measured:
        """Number of tokens that differ after decoding a text and encoding it again."""
        text, ids = self._sample_text()
        again = self.model.to_tokens_without_special(text)
        wrong = abs(len(again) - len(ids)) + sum(a != b for a, b in zip(again, ids, strict=False))
        return float(wrong), 0.0, f"{text!r} becomes {self.model.to_string(again)!r}" if wrong else ""

    def bos_as_stated(self) -> Measured:
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
