"""Loading a model by name: embedded, installed, a local folder, or the Hugging Face Hub, in this order (or planted, which is made at once).

The plain Hugging Face module is loaded, in eval mode and without gradients; TransformerLens is imported only when a bridge is
needed. Code that comes with a model is never executed. What transformers only warns about (missing or unused weights) is an
error here, because the resulting numbers would look plausible; only unused weights that change none of them, of other heads and
constant buffers, are a remark, and an encoder without the head of its task is loaded bare.
"""

from __future__ import annotations

import copy
import io
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from interp.errors import ModelUnavailable, first_line
from interp.files import error_reason, user_path
from interp.models.bos import check_bos, set_bos
from interp.models.device_map import check_placed, placement
from interp.models.embedded import PLANTED, embedded_folder, embedded_names
from interp.models.find_gguf import find_gguf, gguf_form
from interp.models.folder_check import check_folder, has_tokenizer
from interp.models.installed_models import (
    check_installed_weights,
    find_installed,
    installable_models,
    installed_form,
    installed_names,
)
from interp.models.lora_adapter import base_model, is_adapter_folder, merge_adapter
from interp.models.memory import check_device_and_dtype, check_load
from interp.models.quantisation_method_and_tensors import quantised_form
from interp.models.read_facts import is_encoder, reads_images

if TYPE_CHECKING:
    from interp.models.model import Model

HARMLESS = re.compile(
    r"^(\w+\.)?(pooler|classifier|pre_classifier|score|qa_outputs|cls\.seq_relationship|discriminator_predictions|v_head)\."
    r"|\.(attn|attention)\.(bias|masked_bias)$|\.rotary_emb\.inv_freq$|\.position_ids$"
)
"""Unused weights that no logit or attention row depends on: heads of other tasks, and constants that older versions stored."""


def load_model(
    name: str = "interp-mini",
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    offline: bool = False,
    bos: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    max_memory: str | dict[int | str, int | str] | None = None,
) -> Model:
    """The Model called ``name``: an embedded model, an installed one (``smollm2``, see ``install_model``), a local folder (Hugging Face
    form, an adapter of peft, or a TransformerLens 2.x toy), a GGUF file, a Hub name, or a model with planted heads
    (``planted:mini_ioi,seed=3``; see ``plant``).

    ``dtype`` is float32, bfloat16, float16 or float64; ``revision`` (a branch, tag or commit) belongs to Hub names; ``offline``
    uses only what the Hub cache holds; ``bos`` says whether prompts begin with BOS: auto, always or never (``models/bos.py``).
    ``device_map`` and ``max_memory`` are those of transformers, which places the layers on several devices instead of ``device``.
    Quantised models stay quantised.

    Raises ModelUnavailable for a missing model or part of it, ArtefactInvalid for NaN or infinite weights, MemoryBudgetExceeded, and
    ValueError for what is neither a causal transformer nor an encoder.
    """
    check_device_and_dtype(device, dtype)
    check_bos(bos)
    placed = placement(device, device_map, max_memory)
    is_planted = name.startswith(PLANTED)
    folder = None if is_planted else find_folder(name)
    gguf = find_gguf(name, folder) if folder else None
    if revision is not None and (is_planted or folder):
        place = f"is the folder {folder}" if folder else "is made here"
        raise ValueError(f"revision={revision!r} belongs to models of the Hub, and {name} {place}.")
    if placed and (is_planted or (folder and is_adapter_folder(folder))):
        raise ValueError(
            f"device_map belongs to folders and Hub names that hold all weights, and not to {name}: give device instead."
        )
    if is_planted:
        from interp.models.planted.plant import plant_by_name

        return set_bos(plant_by_name(name, device=device, dtype=dtype).model, bos)
    if folder is not None and gguf is None:
        from interp.models.hooked_transformer_toys import is_hooked_transformer_folder, load_hooked_transformer

        if is_hooked_transformer_folder(folder):
            return set_bos(load_hooked_transformer(folder, name=name, device=device, dtype=dtype), bos)
        if is_adapter_folder(folder):
            return _load_adapter(name, folder, device, dtype, offline, bos)
        check_folder(folder)
    local = offline or folder is not None or not hub_is_resolvable()
    where = {"revision": revision or "main", "local_files_only": local}
    return _load(name, folder, gguf, device, dtype, bos, placed, where)


def find_folder(name: str) -> Path | None:
    """The folder of an embedded or local model or of a GGUF file, or None for a name to look up on the Hub. Raises
    ModelUnavailable when ``name`` can only be a path and nothing is there."""
    if not name.strip():
        raise ModelUnavailable(f"The name of the model is empty. {_choices()}")
    if name in embedded_names():
        return embedded_folder() / name
    if installed := find_installed(name):
        return installed
    path = user_path(name)
    try:
        if path.is_dir():
            return path
        exists = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ModelUnavailable(f"{name} cannot be a folder: {error_reason(error)}. {_choices()}") from None
    if exists and path.suffix == ".gguf":
        return path.parent
    if exists:
        raise ModelUnavailable(f"{name} is a file: give a GGUF file, or the folder that holds config.json and the weights.")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelUnavailable(f"There is no folder {name!r}. {_choices()}")
    return None


def hub_is_resolvable() -> bool:
    """Whether the Hub's host name can be resolved (or a proxy is set); without this check, six retries take half a minute."""
    from huggingface_hub.constants import ENDPOINT

    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, None)
    except OSError:
        return False
    return True


def _load_adapter(name: str, folder: Path, device: str, dtype: str, offline: bool, bos: str) -> Model:
    """The base model of the adapter in ``folder``, with the adapter merged into its weights."""
    from interp.models.load_tokenizer import load_tokenizer
    from interp.models.wrap_model import wrap_model

    base_name, revision = base_model(folder)
    base = load_model(base_name, device=device, dtype=dtype, revision=revision, offline=offline)
    with _strict(name, folder):
        hf = merge_adapter(base.hf, folder)
        tokenizer = load_tokenizer(str(folder), name, local_files_only=True) if has_tokenizer(folder) else base.tokenizer
    form = "; ".join(filter(None, (base.facts.weights_form, f"adapter merged into {base_name}")))
    return wrap_model(hf, tokenizer, name=name, revision=base.facts.revision, weights_form=form, bos=bos)


def _load(
    name: str,
    folder: Path | None,
    gguf: Path | None,
    device: str,
    dtype: str,
    bos: str,
    placed: dict[str, Any],
    options: dict[str, Any],
) -> Model:
    from transformers import AutoConfig, AutoModel

    from interp.models.load_tokenizer import load_tokenizer
    from interp.models.wrap_model import wrap_model

    source, options = str(folder or name), {**options, "trust_remote_code": False, **({"gguf_file": gguf.name} if gguf else {})}
    with _strict(name, folder):
        config = AutoConfig.from_pretrained(source, **options)
    loader = _loader(config, name)
    form = quantised_form(config)
    if form and not placed:
        placed = placement(device, {"": device})
    if not placed:
        check_load(name, config, dtype, device, loader)
    with _strict(name, folder):
        hf, report = _weights(loader, source, config, dtype, {**options, **placed})
        if is_encoder(config) and _lacks_head(hf, report):
            full, (hf, report) = type(hf).__name__, _weights(AutoModel, source, config, dtype, options)
            warnings.warn(f"{name} has no head for {full}, and is loaded as the bare {type(hf).__name__}.", stacklevel=2)
        _drop_missing_pooler(hf, report)
        _check_keys(report, name, type(hf).__name__, config.architectures)
        without_tokenizer = reads_images(hf) or (folder and not gguf and not has_tokenizer(folder))
        tokenizer = None if without_tokenizer else load_tokenizer(source, name, **options)
        form = gguf_form(gguf) if gguf else form or installed_form(name)
    if gguf and (quantizer := getattr(hf, "hf_quantizer", None)):
        quantizer.remove_quantization_config(hf)  # the weights are plain ones now
    revision = "" if folder else getattr(hf.config, "_commit_hash", None) or options["revision"]
    check_placed(hf, name)
    model = wrap_model(hf if placed else hf.to(device), tokenizer, name=name, revision=revision, weights_form=form, bos=bos)
    check_installed_weights(model)
    return model


def _loader(config: Any, name: str) -> Any:
    """transformers' class that loads models of this configuration. Raises ValueError for a kind that is not supported."""
    import transformers as t
    from transformers.models.auto import modeling_auto as auto

    kind = type(config)
    if is_encoder(config):
        bare = getattr(auto.MODEL_MAPPING.get(kind, None), "__name__", None)
        if bare in (config.architectures or ()):
            return t.AutoModel
        return t.AutoModelForMaskedLM if kind in auto.MODEL_FOR_MASKED_LM_MAPPING else t.AutoModelForImageClassification
    if kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING and not getattr(config, "is_encoder_decoder", False):
        return t.AutoModelForCausalLM
    supported = "causal (decoder-only) language models and encoders of text (BERT) or image patches (ViT)"
    raise ValueError(f"{name} is of type {config.model_type}: supported are {supported}.")


def _weights(loader: Any, source: str, config: Any, dtype: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The module, and what transformers reports of its weights; its bar of the tensors of a GGUF file, which nothing turns off, is kept
    from the terminal."""
    with redirect_stderr(io.StringIO()) if "gguf_file" in options else nullcontext():
        return loader.from_pretrained(
            source, config=copy.deepcopy(config), dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )


def _lacks_head(hf: Any, report: dict[str, Any]) -> bool:
    """Whether all weights outside of the base model are missing, and none in it. (Those that are tied to the base are not counted.)"""
    inside, missing = f"{hf.base_model_prefix}.", set(report["missing_keys"])
    head = {key for key, _ in hf.named_parameters() if not key.startswith(inside)}
    return hf.base_model is not hf and bool(head) and head <= missing and not any(key.startswith(inside) for key in missing)


def _drop_missing_pooler(hf: Any, report: dict[str, Any]) -> None:
    """Removes a pooler whose weights are missing, which transformers would draw at random: nothing here reads it."""
    pooler = getattr(hf, "pooler", None)
    keys = {f"pooler.{key}" for key, _ in pooler.named_parameters()} if pooler is not None else set()
    if keys and keys <= set(report["missing_keys"]):
        hf.pooler = None
        report["missing_keys"] = set(report["missing_keys"]) - keys


def _check_keys(report: dict[str, Any], name: str, architecture: str, saved_as: list[str] | None) -> None:
    """Raises ModelUnavailable when weights are missing, unused or of another shape than config.json says; warns of unused weights
    without effect."""
    unused: set[str] = set(report.get("unexpected_keys") or ())
    harmless = sorted(key for key in unused if HARMLESS.search(key))
    report = {**report, "unexpected_keys": unused - set(harmless)}
    for kind, meaning in (
        ("missing_keys", f"lacks weights that {architecture} needs"),
        ("unexpected_keys", f"has weights that {architecture} does not use"),
        ("mismatched_keys", "has weights of another shape than its config.json says"),
        ("error_msgs", "has weights that could not be read"),
    ):
        keys = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report.get(kind) or ())
        if keys:
            why = "config.json and weights do not match"
            if saved_as and architecture not in saved_as:
                why = f"It was saved as {saved_as[0]}"
            raise ModelUnavailable(f"{name} {meaning}: {_first_three(keys)}. {why}.")
    if harmless:
        left_out = "has weights on which neither its logits nor its attention depend; they are left out"
        warnings.warn(f"{name} {left_out}: {_first_three(harmless)}.", stacklevel=2)


def _first_three(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


@contextmanager
def _strict(name: str, folder: Path | None) -> Iterator[None]:
    """Silences transformers, and turns whatever the loader raises into one ModelUnavailable; the original is chained."""
    try:
        with quiet_transformers():
            yield
    except (ModelUnavailable, MemoryError):
        raise
    except Exception as error:  # configurations, weights and network fail in as many ways as there are libraries below
        if folder is None and _not_reached(error):
            here = "neither a folder on this machine nor in its cache of the Hugging Face Hub"
            cause = "and the Hub was not reached (there is no connection, or offline was chosen)"
            raise ModelUnavailable(f"Model {name!r} is {here}, {cause}. {_choices(name)}") from error
        reason = first_line(error)
        sentence = f"Model {name!r} could not be loaded from the Hugging Face Hub ({reason}). {_choices(name)}"
        raise ModelUnavailable(f"{folder} could not be loaded: {reason}." if folder else sentence) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the block, transformers shows errors alone, and no progress bar."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _not_reached(error: BaseException | None) -> bool:
    """Whether the Hub was asked in vain, or not at all, for something that its cache lacks."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return error is not None and (
        isinstance(error, LocalEntryNotFoundError) or _not_reached(error.__cause__ or error.__context__)
    )


def _choices(name: str = "") -> str:
    embedded, close = (
        ", ".join(embedded_names()) or "none",
        get_close_matches(name, [*embedded_names(), *installable_models()], n=1),
    )
    meant = f" Did you mean {close[0]!r}?" if close else ""
    others = "a folder with config.json and weights, or a Hub name such as openai-community/gpt2"
    installed = f" Installed: {', '.join(names)}." if (names := installed_names()) else ""
    return f"Embedded models: {embedded}.{installed}{meant} Or give {others}."
