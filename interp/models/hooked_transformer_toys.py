"""Toy models trained with TransformerLens 2.x: a HookedTransformer's state dict and its configuration.

They are rebuilt as TransformerLens's native transformer, whose weights have the same names. A setting that the rebuilt model
would compute differently is refused by name, and so is the lack of one that the weights do not show, so that a loaded model has the
logits of the original.
"""

import json
from pathlib import Path
from typing import Any

import torch

from interp.errors import ModelUnavailable
from interp.files import user_path
from interp.models.bos import tokenizer_adds_bos
from interp.models.folder_check import check_length, read_json
from interp.models.load_tokenizer import read_tokenizer_file
from interp.models.memory import check_device_and_dtype
from interp.models.model import Model, ModelFacts
from interp.models.read_facts import weights_digest
from interp.models.transformer_lens_bridge_over_model import prepare_transformer_lens
from interp.models.wrap_model import check_finite

SIZES = ("n_layers", "n_heads", "d_model", "d_head", "n_ctx", "d_vocab")
LARGEST_CONFIG = 2**20  # a tokenizer.json may be larger, and is not a configuration
SUFFIXES = (".pt", ".pth", ".safetensors")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "solu", "solu_ln")
CONFIG_FIELDS = (
    *SIZES, "d_mlp", "d_vocab_out", "attn_only", "normalization_type", "eps", "final_rms", "attention_dir",
    "attn_scores_soft_cap", "output_logits_soft_cap",
)  # fmt: skip
# The only values of these settings for which the rebuilt model equals the original; TransformerLens's own default stands first.
SUPPORTED_VALUES = {
    "positional_embedding_type": ("standard",),
    **dict.fromkeys(("gated_mlp", "parallel_attn_mlp", "use_local_attn", "scale_attn_by_inverse_layer_idx"), (False,)),
    **dict.fromkeys(("use_normalization_before_and_after", "post_embedding_ln", "use_qk_norm"), (False,)),
    "use_attn_scale": (True,),
    "num_experts": (None,),
    "attention_dir": ("causal", "bidirectional"),
    "normalization_type": ("LN", "LNPre", "RMS", "RMSPre", None),
    "final_rms": (False, True),
}
# Settings of every 2.x configuration that change logits and no name or shape of a weight. (Soft caps came later: missing means none.)
REQUIRED = (
    "attention_dir", "normalization_type", "eps", "final_rms", "positional_embedding_type", "use_attn_scale",
    "scale_attn_by_inverse_layer_idx", "parallel_attn_mlp", "use_local_attn",
)  # fmt: skip


def load_hooked_transformer(
    source: str | Path,
    config: str | Path | None = None,
    *,
    name: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Model:
    """The Model of a HookedTransformer saved by TransformerLens 2.x; also with classifier heads, attention-only or bidirectional.

    ``source`` is a weights file (.pt or .pth, read without running pickled code, or .safetensors) or a folder with one of them;
    ``config`` is the JSON of ``model.cfg.to_dict()``, by default the one next to the weights or the ``config`` entry of the .pt file.
    Raises ModelUnavailable for missing or unreadable files and ValueError for a setting that is not supported.
    """
    check_device_and_dtype(device, dtype)
    source = user_path(source)
    weights = _weights_file(source)
    values, tensors = _read(weights)
    if config is not None:
        values = read_json(user_path(config))
    elif values is None:
        values = _config_beside(weights)
    check_config(values, weights)
    tokenizer = _tokenizer(weights.parent)
    bridge = _build(values, tensors, weights, device, dtype)
    return Model(_facts(bridge, values, tokenizer, name or str(source)), tokenizer, None, None, bridge)


def is_hooked_transformer_folder(folder: Path) -> bool:
    """Whether ``folder`` holds the configuration and weights of a TransformerLens 2.x model rather than a Hugging Face one."""
    return bool(_weights_in(folder)) and bool(_configs_in(folder))


def check_config(values: dict[str, Any], where: Path) -> None:
    """Raises ValueError when a size or a setting that changes the logits is missing, or is not supported by the rebuilt model."""
    missing = [size for size in SIZES if not isinstance(values.get(size), int)]
    if missing:
        raise ValueError(f"The configuration of {where} lacks {', '.join(missing)}: give the JSON of model.cfg.to_dict().")
    allowed = {**SUPPORTED_VALUES, "n_key_value_heads": (None, values["n_heads"])}
    if not values.get("attn_only"):
        allowed["act_fn"] = ACTIVATIONS
    unset = [field for field in (*REQUIRED, "act_fn") if field not in values and (field == "eps" or field in allowed)]
    if unset:
        choices = {field: " or ".join(map(json.dumps, allowed.get(field, (1e-5,)))) for field in unset}
        lines = ", ".join(f'"{field}": {choice}' for field, choice in choices.items())
        raise ValueError(
            f"The configuration of {where} lacks {', '.join(unset)}, which the logits depend on and the weights do not show: "
            f"write {lines}, as the training code set it, or the first value where it set none."
        )
    for field, choices in allowed.items():
        if field in values and values[field] not in choices:
            what = f"{where} has {field}={values[field]!r}, which is not supported for TransformerLens 2.x models"
            raise ValueError(f"{what}. Supported: {', '.join(map(repr, choices))}.")
    scale, usual = values.get("attn_scale") or -1.0, values["d_head"] ** 0.5
    if scale > 0 and abs(scale - usual) > 1e-3 * usual:
        raise ValueError(f"{where} has attn_scale={scale}, and only the square root of d_head, {usual:.4g}, is supported.")


def _weights_file(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise ModelUnavailable(f"There is no file or folder {source}.")
    found = _weights_in(source)
    if len(found) != 1:
        has = ", ".join(file.name for file in found) or "none"
        raise ModelUnavailable(f"{source} needs one weights file ({', '.join(SUFFIXES)}) and has: {has}. Name the file itself.")
    return found[0]


def _weights_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)


def _configs_in(folder: Path) -> list[Path]:
    def is_config(file: Path) -> bool:
        try:
            values = read_json(file)
        except ModelUnavailable:
            return False
        return "model_type" not in values and {"d_model", "n_ctx"} <= values.keys()

    small = [file for file in folder.glob("*.json") if file.stat().st_size <= LARGEST_CONFIG]
    return sorted(file for file in small if is_config(file))


def _config_beside(weights: Path) -> dict[str, Any]:
    found = _configs_in(weights.parent)
    own = [file for file in found if file.stem == weights.stem] or found
    if len(own) != 1:
        names = ", ".join(file.name for file in own) or "none"
        raise ModelUnavailable(f"{weights} needs one configuration (JSON with d_model and n_ctx) next to it; found: {names}.")
    return read_json(own[0])


def _read(weights: Path) -> tuple[dict[str, Any] | None, dict[str, torch.Tensor]]:
    """Configuration (None when the file has none) and tensors of a weights file."""
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        check_length(weights)
        return None, load_file(weights)
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for every way a file can be wrong
        reason = "it is damaged, or holds Python objects, which are never loaded"
        advice = "Save model.state_dict(), and the configuration as JSON."
        raise ModelUnavailable(f"{weights} could not be read as plain tensors: {reason}. {advice}") from error
    config = next((content[key] for key in ("config", "cfg") if isinstance(content.get(key), dict)), None)
    tensors = next((content[key] for key in ("state_dict", "model", "weights") if isinstance(content.get(key), dict)), content)
    return config, {key: value for key, value in tensors.items() if isinstance(value, torch.Tensor)}


def _build(values: dict[str, Any], tensors: dict[str, torch.Tensor], where: Path, device: str, dtype: str) -> Any:
    weights = (pair for pair in tensors.items() if pair[0].rpartition(".")[2] not in ("IGNORE", "mask"))
    check_finite(weights, str(where))
    prepare_transformer_lens()
    from transformer_lens import TransformerBridge, TransformerBridgeConfig
    from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

    settings = {field: values[field] for field in CONFIG_FIELDS if field in values}
    settings["act_fn"] = {"gelu_pytorch_tanh": "gelu_new"}.get(name := values.get("act_fn") or "relu", name)
    settings["d_mlp"] = settings.get("d_mlp") or 4 * values["d_model"]
    config = TransformerBridgeConfig(**settings, seed=0)
    bridge: Any = TransformerBridge.boot_native(config, device=device, dtype=getattr(torch, dtype))  # pyright: ignore[reportAttributeAccessIssue]
    try:
        bridge.load_state_dict(convert_tl_checkpoint(tensors, config), strict=True)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelUnavailable(f"The weights of {where} do not fit its configuration: {reason}") from error
    return bridge.eval().requires_grad_(False)


def _tokenizer(folder: Path) -> Any:
    """The fast tokenizer of ``folder``. (AutoTokenizer would interpret the toy's config.json and fail.)"""
    if not (folder / "tokenizer.json").is_file():
        return None
    from transformers import PreTrainedTokenizerFast

    read_tokenizer_file(folder / "tokenizer.json")
    return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)


def _facts(bridge: Any, values: dict[str, Any], tokenizer: Any, name: str) -> ModelFacts:
    parameters = dict(bridge.state_dict())
    bos = getattr(tokenizer, "bos_token_id", None)
    wants_bos = values.get("default_prepend_bos", True) or tokenizer_adds_bos(tokenizer)
    return ModelFacts(
        name=name,
        architecture="HookedTransformer",
        **{size: values[size] for size in ("n_layers", "n_heads", "d_model", "d_head", "d_vocab")},
        n_kv_heads=values["n_heads"],
        d_mlp=0 if values.get("attn_only") else bridge.cfg.d_mlp,
        max_length=values["n_ctx"],
        positions="learned",
        sliding_windows=(None,) * values["n_layers"],
        parallel_attn_mlp=False,
        causal=values["attention_dir"] == "causal",
        prepend_bos=bos is not None and wants_bos,
        bos_token_id=bos,
        n_parameters=sum(p.numel() for p in parameters.values()),
        dtype=str(next(iter(parameters.values())).dtype).removeprefix("torch."),
        revision="",
        weights_digest=weights_digest(parameters.items()),
    )
