"""Facts about a model that need no forward pass: read from its configuration, its tokenizer and its weights.

BOS policy, decided once per model: BOS is prepended when the tokenizer itself does so, or when models of this family are studied
with it (TransformerLens's ``default_prepend_bos``: GPT-2, Llama, Gemma, Mistral, OPT ... yes; Pythia, Qwen, Phi, Bloom ... no).
Without a BOS token nothing is prepended. Texts of an encoder are encoded by its tokenizer alone, with the special tokens that it
adds ([CLS], [SEP]), so ``prepend_bos`` is False there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from interp.models.model import ModelFacts

if TYPE_CHECKING:
    import torch
    from torch import nn

NO_BOS_FAMILIES = frozenset(
    "bloom deepseek_v2 ernie4_5 ernie4_5_moe exaone exaone4 glm glm4_moe gpt_neox granite llada minimax_m2 mpt phi phimoe "
    "qwen2 qwen2_5_vl qwen2_moe qwen3 qwen3_moe recurrent_gemma seed_oss smollm3 starcoder2".split()
)
LEARNED = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight", "position_embeddings")
FULL_DIGEST_BYTES = 2**28
_SAMPLE = 2**16


def facts_of(hf: nn.Module, tokenizer: Any, name: str, revision: str = "") -> ModelFacts:
    """The facts of a Hugging Face causal language model or encoder. Raises ValueError when its configuration lacks a size."""
    config: Any = hf.config
    config = config.get_text_config(decoder=True)
    n_layers = _size(config, name, "num_hidden_layers", "n_layer")
    n_heads = _size(config, name, "num_attention_heads", "n_head")
    d_model = _size(config, name, "hidden_size", "n_embd")
    positions, causal = _positions(hf, config), not (reads_images(hf) or is_encoder(config))
    bos = getattr(config if tokenizer is None else tokenizer, "bos_token_id", None)
    return ModelFacts(
        name=name,
        architecture=type(hf).__name__,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=_n_kv_heads(config, n_heads),
        d_model=d_model,
        d_head=getattr(config, "head_dim", None) or d_model // n_heads,
        d_mlp=_first(config, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim") or 4 * d_model,
        d_vocab=_d_vocab(hf, config, name),
        max_length=None if positions == "alibi" else _max_length(hf, config),
        positions=positions,
        sliding_windows=_windows(config, n_layers),
        parallel_attn_mlp=_parallel(config),
        causal=causal,
        prepend_bos=causal and bos is not None and (tokenizer_adds_bos(tokenizer) or config.model_type not in NO_BOS_FAMILIES),
        bos_token_id=bos,
        n_parameters=sum(p.numel() for p in hf.parameters()),
        dtype=str(next(hf.parameters()).dtype).removeprefix("torch."),
        revision=revision,
        weights_digest=weights_digest(hf.named_parameters()),
    )


def is_encoder(config: Any) -> bool:
    """Whether models of this configuration are bidirectional: masked language models without a decoder, and image encoders."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False):
        return False
    is_image_encoder = type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING and hasattr(config, "patch_size")
    return is_image_encoder or type(config) in MODEL_FOR_MASKED_LM_MAPPING


def reads_images(hf: nn.Module) -> bool:
    """Whether the model takes pixels instead of token ids."""
    return getattr(hf, "main_input_name", "") == "pixel_values"


def tokenizer_adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer prepends BOS by itself."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def weights_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 (first 16 hex digits) over names, dtypes, shapes and values of all tensors, independent of their order. Above 256
    MiB in total, a tensor of more than 65536 values is represented by 65536 evenly spaced ones, so that a 7B model takes about
    a second; such a digest starts with ``sampled-``."""
    named = sorted(tensors, key=lambda pair: pair[0])
    sampled = sum(t.numel() * t.element_size() for _, t in named) > FULL_DIGEST_BYTES
    total = hashlib.sha256()
    for name, tensor in named:
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(_bytes(tensor, sampled))
    return ("sampled-" if sampled else "") + total.hexdigest()[:16]


def _bytes(tensor: torch.Tensor, sampled: bool) -> bytes:
    import torch

    flat = tensor.detach().reshape(-1)
    if sampled and flat.numel() > _SAMPLE:
        flat = flat[torch.linspace(0, flat.numel() - 1, _SAMPLE, dtype=torch.float64, device=flat.device).long()]
    return flat.contiguous().view(torch.uint8).cpu().numpy().tobytes()


def _first(config: Any, *keys: str) -> Any:
    return next((value for key in keys if (value := getattr(config, key, None)) is not None), None)


def _size(config: Any, name: str, *keys: str) -> int:
    value = _first(config, *keys)
    if not isinstance(value, int) or value < 1:
        found = f"its configuration ({config.model_type}) has {keys[0]}={value!r}"
        raise ValueError(f"{name} is not a supported transformer: {found}, where a positive integer is required.")
    return value


def _n_kv_heads(config: Any, n_heads: int) -> int:
    if config.model_type == "falcon":
        return config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else n_heads
    if config.model_type == "gpt_bigcode":
        return 1 if config.multi_query else n_heads
    return _first(config, "num_key_value_heads") or n_heads


def _positions(hf: nn.Module, config: Any) -> str:
    if config.model_type in ("bloom", "mpt") or getattr(config, "alibi", False):
        return "alibi"
    if _first(config, "rope_parameters", "rope_theta", "rotary_dim") is not None:
        return "rotary"
    return "learned" if any(name.endswith(LEARNED) for name, _ in hf.named_parameters()) else "none"


def _max_length(hf: nn.Module, config: Any) -> int | None:
    """Number of usable position embeddings: RoBERTa does not use the first rows of its table, and images have one per patch."""
    for name, module in hf.named_modules():
        if name.endswith("position_embeddings") and (unused := getattr(module, "padding_idx", None)) is not None:
            return config.max_position_embeddings - unused - 1
    if reads_images(hf):
        return next((p.shape[1] for name, p in hf.named_parameters() if name.endswith("position_embeddings")), None)
    return _first(config, "max_position_embeddings", "n_positions")


def _d_vocab(hf: nn.Module, config: Any, name: str) -> int:
    """Width of the logits; 0 for an image model without a classifier."""
    if reads_images(hf):
        return config.num_labels if type(hf).__name__.endswith("ForImageClassification") else 0
    return _size(config, name, "vocab_size")


def _windows(config: Any, n_layers: int) -> tuple[int | None, ...]:
    window = _first(config, "sliding_window", "window_size")
    kinds = _first(config, "layer_types", "attention_layers")
    if kinds is None:
        return (window,) * n_layers
    return tuple(window if kind in ("sliding_attention", "local") else None for kind in kinds)


def _parallel(config: Any) -> bool:
    if config.model_type == "gpt_neox":
        return bool(config.use_parallel_residual)
    if config.model_type == "falcon":
        return bool(config.parallel_attn or config.new_decoder_architecture)
    return config.model_type in ("phi", "gptj", "codegen", "cohere", "cohere2")
