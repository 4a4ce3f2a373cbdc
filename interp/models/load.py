"""Loading a model by name: embedded, a local folder, or the Hugging Face Hub, in this order (or planted, which is made at once).

The plain Hugging Face module is loaded, in eval mode and without gradients; TransformerLens is imported only when a bridge is
needed. Code that comes with a model is never executed. What transformers only warns about (missing or unused weights) is an
error here, because the resulting numbers would look plausible.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from interp.errors import ModelUnavailable
from interp.models.embedded import PLANTED, embedded_folder, embedded_names
from interp.models.facts import is_encoder, reads_images
from interp.models.folder_check import check_folder, has_tokenizer
from interp.models.memory import available_memory, check_budget, check_device_and_dtype, load_bytes

if TYPE_CHECKING:
    from interp.models.model import Model


def load_model(
    name: str = "interp-mini",
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    offline: bool = False,
) -> Model:
    """The Model called ``name``: an embedded model, a local folder (Hugging Face form, or a TransformerLens 2.x toy), a Hub name, or a
    model with planted heads (``planted:mini_ioi,seed=3``; see ``plant``).

    ``dtype`` is float32, bfloat16, float16 or float64; ``revision`` (a branch, tag or commit) belongs to Hub names; ``offline``
    uses only what the Hub cache holds. Raises ModelUnavailable for a missing model or part of it, ArtefactInvalid for NaN or
    infinite weights, MemoryBudgetExceeded, and ValueError for what is neither a causal transformer nor an encoder.
    """
    check_device_and_dtype(device, dtype)
    is_planted = name.startswith(PLANTED)
    folder = None if is_planted else find_folder(name)
    if revision is not None and (is_planted or folder):
        place = f"is the folder {folder}" if folder else "is made here"
        raise ValueError(f"revision={revision!r} belongs to models of the Hub, and {name} {place}.")
    if is_planted:
        from interp.models.planted.plant import plant_by_name

        return plant_by_name(name, device=device, dtype=dtype).model
    if folder is not None:
        from interp.models.hooked_transformer_toys import is_hooked_transformer_folder, load_hooked_transformer

        if is_hooked_transformer_folder(folder):
            return load_hooked_transformer(folder, name=name, device=device, dtype=dtype)
        check_folder(folder)
    local = offline or folder is not None or not hub_is_resolvable()
    return _load(name, folder, device, dtype, {"revision": revision or "main", "local_files_only": local})


def find_folder(name: str) -> Path | None:
    """The folder of an embedded or local model, or None for a name to look up on the Hub. Raises ModelUnavailable when ``name``
    can only be a path and nothing is there."""
    if name in embedded_names():
        return embedded_folder() / name
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelUnavailable(f"{name} is a file: give the folder that holds config.json and the weights.")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or not name.strip():
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


def _load(name: str, folder: Path | None, device: str, dtype: str, options: dict[str, Any]) -> Model:
    from transformers import AutoConfig, AutoTokenizer

    from interp.models.wrap_model import wrap_model

    source, options = str(folder or name), {**options, "trust_remote_code": False}
    with _strict(name, folder):
        config = AutoConfig.from_pretrained(source, **options)
    loader = _loader(config, name)
    check_budget(load_bytes(config, dtype, loader), available_memory(device), f"Loading {name} in {dtype}")
    with _strict(name, folder):
        loaded: Any = loader.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
        hf, report = loaded
        _check_keys(report, name)
        without_tokenizer = reads_images(hf) or (folder and not has_tokenizer(folder))
        tokenizer = None if without_tokenizer else AutoTokenizer.from_pretrained(source, **options)
    revision = "" if folder else getattr(hf.config, "_commit_hash", None) or options["revision"]
    return wrap_model(hf.to(device), tokenizer, name=name, revision=revision)


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


def _check_keys(report: dict[str, Any], name: str) -> None:
    """Raises ModelUnavailable when weights are missing, unused or of another shape than config.json says."""
    for kind, meaning in (
        ("missing_keys", "lacks weights that its architecture needs"),
        ("unexpected_keys", "has weights that its architecture does not use"),
        ("mismatched_keys", "has weights of another shape than its config.json says"),
        ("error_msgs", "has weights that could not be read"),
    ):
        keys = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report.get(kind) or ())
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise ModelUnavailable(f"{name} {meaning}: {', '.join(keys[:3])}{more}. config.json and weights do not match.")


@contextmanager
def _strict(name: str, folder: Path | None) -> Iterator[None]:
    """Silences transformers, and turns whatever the loader raises into one ModelUnavailable; the original is chained."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (ModelUnavailable, MemoryError):
        raise
    except Exception as error:  # configurations, weights and network fail in as many ways as there are libraries below
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".:")
        sentence = f"Model {name!r} could not be loaded from the Hugging Face Hub ({reason}). {_choices()}"
        raise ModelUnavailable(f"{folder} could not be loaded: {reason}." if folder else sentence) from error
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _choices() -> str:
    embedded = ", ".join(embedded_names()) or "none"
    return f"Embedded models: {embedded}. Or give a folder with config.json and weights, or a Hub name such as openai-community/gpt2."
