"""Facts about a model that need no forward pass: read from its configuration, its tokenizer and its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from interp.models.bos import conventional_bos
from interp.models.model import ModelFacts
from interp.models.quantisation_method_and_tensors import weight_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

LEARNED = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight", "position_embeddings")
PROBED_TOKENS = 6


def facts_of(hf: nn.Module, tokenizer: Any, name: str, revision: str = "", weights_form: str = "") -> ModelFacts:
    """The facts of a Hugging Face causal language model or encoder. Raises ValueError when its configuration lacks a size."""
    config: Any = hf.config
    config = config.get_text_config(decoder=True)
    n_layers = _size(config, name, "num_hidden_layers", "n_layer")
    n_heads = _size(config, name, "num_attention_heads", "n_head")
    d_model = _size(config, name, "hidden_size", "n_embd")
    positions, causal = _positions(hf, config), is_causal(hf)
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
        prepend_bos=causal and bos is not None and conventional_bos(config.model_type, tokenizer),
        bos_token_id=bos,
        n_parameters=sum(p.numel() for p in hf.parameters()),
        dtype=str(next(hf.parameters()).dtype).removeprefix("torch."),
        revision=revision,
        weights_digest=weights_digest(weight_tensors(hf)),
        weights_form=weights_form,
    )


def is_causal(hf: nn.Module) -> bool:
    """Whether no output depends on a later token, measured on random tokens of which the last one is changed.

    Dense models compute equal rows alike in any dtype; where experts are given other batches rounding differs, so that a change counts
    from 16 units of rounding on. Image models are not causal.
    """
    import torch

    if reads_images(hf):
        return False
    model: Any = hf
    draw = torch.Generator().manual_seed(0)
    n_tokens = model.get_input_embeddings().weight.shape[0]
    before = torch.randint(n_tokens, (1, PROBED_TOKENS), generator=draw).to(model.device)
    after = before.clone()
    after[:, -1] = (after[:, -1] + n_tokens // 2) % n_tokens
    if (
        padding := getattr(model.config, "pad_token_id", None)
    ) is not None:  # XLM hides as many last tokens as there is padding
        before[before == padding], after[after == padding] = [(padding + 1) % n_tokens] * 2
    with torch.no_grad():
        first, second = (model(input_ids=tokens)[0][:, :-1].float() for tokens in (before, after))
    computed = (first.isfinite() & second.isfinite()).all(-1)  # a model that overflows tells nothing elsewhere
    if not computed.any():
        return not is_encoder(model.config)
    first, second = first[computed], second[computed]
    dtype = model.dtype if any("expert" in name for name, _ in hf.named_modules()) else torch.float32
    tolerance = max(16 * torch.finfo(dtype).eps, 64 * torch.finfo(torch.float32).eps) * float(first.abs().max())
    return bool((first - second).abs().max() <= tolerance)


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


def weights_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 (first 16 hex digits) over names, dtypes, shapes and every byte of all tensors, independent of their order: about a
    second per GiB."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(_bytes(tensor))
    return total.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.detach().reshape(-1).contiguous().view(torch.uint8).cpu().numpy().data


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
