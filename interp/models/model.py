"""A loaded model and the facts about it that other modules rely on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import FastPathUnavailable
from interp.heads import Head
from interp.models.chat_template import chat_parts
from interp.models.rotary_length_classes import LengthClasses
from interp.models.token_text import token_text
from interp.records import RunRecord

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that need no forward pass.

    Sizes are TransformerLens's words. ``sliding_windows`` has one entry a layer: the sliding window in tokens, or None for full attention.
    ``positions`` is rotary, learned, alibi or none. ``parallel_attn_mlp`` is True where attention and MLP of a block read the same
    input. ``max_length`` is None where it is unbounded. ``causal`` is False for encoders. For image models ``d_vocab`` is the number
    of labels (0 without a classifier) and ``max_length`` that of patches and the tokens before them. ``weights_form`` says how the
    weights were stored, where not as plain floating-point tensors of this model: dequantised, or with an adapter merged into them.
    ``bos_reason`` says why ``prepend_bos`` is not that of the tokenizer and the convention for the family (``models/bos.py``).
    """

    name: str
    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    max_length: int | None
    positions: str
    sliding_windows: tuple[int | None, ...]
    parallel_attn_mlp: bool
    causal: bool
    prepend_bos: bool
    bos_token_id: int | None
    n_parameters: int
    dtype: str
    revision: str
    weights_digest: str
    weights_form: str = ""
    bos_reason: str = ""

    @property
    def bos(self) -> str:
        """``prepend_bos`` as records say it: always, never, or empty for encoders, whose tokenizers add their own special tokens."""
        return ("always" if self.prepend_bos else "never") if self.causal else ""

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // self.n_kv_heads

    def kv_head(self, head: Head) -> int:
        """Index of the key/value head that this query head reads."""
        return head.head // self.group_size

    def heads(self) -> list[Head]:
        """All heads, layer by layer."""
        return [Head(layer, head) for layer in range(self.n_layers) for head in range(self.n_heads)]

    def check_causal(self, what: str) -> None:
        """Raises ValueError, with ``what`` in the message, unless the model is causal."""
        if not self.causal:
            encoder = f"{self.name} ({self.architecture}) is an encoder or otherwise bidirectional: its outputs depend on later tokens"
            advice = "use a causal model, or read this one's attention with observe_attention"
            raise ValueError(f"{what} needs a causal language model, and {encoder}. Please {advice}.")

    def check_head(self, head: Head) -> Head:
        """The head itself. Raises LookupError when the model has no such head."""
        if not (0 <= head.layer < self.n_layers and 0 <= head.head < self.n_heads):
            sizes = f"layers 0-{self.n_layers - 1} and heads 0-{self.n_heads - 1}"
            raise LookupError(f"Head {head} does not exist: {self.name} has {sizes}.")
        return head


@dataclass(frozen=True)
class Layout:
    """Where the parts of a plain Hugging Face causal model are: what the engine needs to resume it from a layer.
    ``attentions[l]`` is the attention module of ``blocks[l]``, ``outputs[l]`` its output projection (input: the heads' z,
    merged); logits before their soft cap are ``logit_scale`` times the unembedded final norm of the last residual."""

    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    outputs: tuple[nn.Module, ...]
    final_norm: nn.Module
    unembed: nn.Module
    logit_scale: float = 1.0


class Model:
    """A causal language model (runs, interventions, attention) or an encoder of text or images (attention only).

    ``hf`` is the plain Hugging Face module (None for TransformerLens-native models); ``bridge`` is the TransformerLens bridge over the
    same weights, built on first use; ``layout`` is None where the modules of ``hf`` could not be located, and the engine then uses
    hooked passes of ``bridge``. A bridge is not safe to use from two threads: hold ``lock`` around every run.
    """

    def __init__(
        self, facts: ModelFacts, tokenizer: Any, hf: nn.Module | None, layout: Layout | None, bridge: Any = None
    ) -> None:
        self.facts, self.tokenizer, self.hf, self.layout = facts, tokenizer, hf, layout
        self.own_attention = getattr(getattr(hf, "config", None), "_attn_implementation", None)
        self.lock = threading.RLock()
        self.length_class = LengthClasses(hf, facts.max_length, self.lock)
        self._bridge = bridge

    @property
    def bridge(self) -> Any:
        """TransformerLens's TransformerBridge over the same weights (shared storage, eager attention)."""
        import torch

        from interp.models.transformer_lens_bridge_over_model import build_bridge

        with self.lock:  # concurrent first uses must get the same bridge
            if self._bridge is None:
                with torch.inference_mode(False):  # weights that a bridge copies must not be inference tensors
                    self._bridge = build_bridge(self)
            return self._bridge

    @property
    def known_parts(self) -> tuple[Any, Layout]:
        """``hf`` and ``layout``. Raises FastPathUnavailable where they are not known."""
        if self.hf is None or self.layout is None:
            raise FastPathUnavailable(f"{self.facts.name}: the parts of a {self.facts.architecture} model are not known")
        return self.hf, self.layout

    @property
    def device(self) -> torch.device:
        return next((self.hf or self.bridge).parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next((self.hf or self.bridge).parameters()).dtype

    @property
    def unknown_id(self) -> int | None:
        """The token id that stands for every word the tokenizer does not know; None where there is none, also where it has another
        meaning as well (GPT-2's is the end of a text)."""
        own = getattr(self.tokenizer, "unk_token_id", None)
        other = (getattr(self.tokenizer, name, None) for name in ("bos_token_id", "eos_token_id"))
        return None if own in other else own

    def to_tokens(self, text: str) -> list[int]:
        """Token ids of a whole prompt, with BOS where ``facts.prepend_bos``, and for an encoder with all special
        tokens that its tokenizer adds. Raises ValueError without a tokenizer."""
        if self.hf is not None and not self.facts.causal:
            return list(self._need_tokenizer()(text)["input_ids"])
        ids = self.to_tokens_without_special(text)
        return [self.facts.bos_token_id, *ids] if self.facts.prepend_bos and self.facts.bos_token_id is not None else ids

    def to_chat_tokens(self, text: str) -> list[int]:
        """Token ids of a text as the user's message in the tokenizer's chat template, which writes all special tokens itself and ends
        where the answer begins. Raises ValueError as ``chat_parts``."""
        return self.to_tokens_without_special("".join(chat_parts(self, text)))

    def to_tokens_without_special(self, text: str) -> list[int]:
        """Token ids of a piece of text, without special tokens."""
        return list(self._need_tokenizer()(text, add_special_tokens=False, verbose=False)["input_ids"])

    def to_str_tokens(self, ids: Iterable[int]) -> list[str]:
        """The text of each token, which can be stored: bytes of a cut character as ``\\xNN``, lone surrogates as ``\\uNNNN``."""
        tokenizer = self._need_tokenizer()
        return [token_text(tokenizer, int(i)) for i in ids]

    def to_string(self, ids: Sequence[int]) -> str:
        return self._need_tokenizer().decode([int(i) for i in ids])

    def _need_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ValueError(f"{self.facts.name} was loaded without a tokenizer: give it token ids instead of text.")
        return self.tokenizer

    def __repr__(self) -> str:
        f = self.facts
        return f"Model({f.name!r}, {f.n_layers} layers x {f.n_heads} heads, {f.n_parameters:,} parameters, {f.dtype})"


def record_of(model: Model, **entries: Any) -> RunRecord:
    """The record of a run of this model; ``entries`` are the remaining fields of ``RunRecord``."""
    facts = model.facts
    loaded = {name: getattr(facts, name) for name in ("revision", "weights_digest", "dtype", "weights_form", "bos")}
    return RunRecord(facts.name, device=str(model.device), **loaded, **entries)
