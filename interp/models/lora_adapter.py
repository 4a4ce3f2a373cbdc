"""Folders that hold an adapter (LoRA and its kin, saved by the package peft), which is merged into its base model."""

import warnings
from pathlib import Path
from typing import Any

from interp.errors import ModelUnavailable
from interp.models.folder_check import read_json
from interp.models.optional_packages import need_packages

CONFIG = "adapter_config.json"


def is_adapter_folder(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and any(folder.glob("adapter_model.*"))


def base_model(folder: Path) -> tuple[str, str | None]:
    """Name and revision of the model that an adapter belongs to. Raises ModelUnavailable where it names none, or without peft."""
    config = read_json(folder / CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    need_packages(f"{folder} holds an adapter (LoRA) of {base!r}, and merging it", "peft", "peft")
    if not base:
        raise ModelUnavailable(f"{folder / CONFIG} names no model: write its name or folder as base_model_name_or_path.")
    return base, revision


def merge_adapter(hf: Any, folder: Path) -> Any:
    """``hf`` with the adapter in ``folder`` added to its weights. Raises ModelUnavailable for an adapter that cannot be merged,
    and when its weights are not exactly those that its configuration asks for."""
    from peft import PeftModel, get_peft_model_state_dict  # pyright: ignore[reportMissingImports]
    from peft.utils import load_peft_weights  # pyright: ignore[reportMissingImports]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keys are compared below
        adapted: Any = PeftModel.from_pretrained(hf, str(folder))
    if not hasattr(adapted.base_model, "merge_and_unload"):
        kind = adapted.active_peft_config.peft_type.value
        raise ModelUnavailable(f"{folder} holds an adapter of type {kind}, which changes no weights, so it cannot be merged.")
    stored, wanted = set(load_peft_weights(str(folder), device="cpu")), set(get_peft_model_state_dict(adapted))
    if different := sorted(stored ^ wanted):
        which = "lacks" if different[0] in wanted else "has unused"
        raise ModelUnavailable(f"The adapter in {folder} {which} weights for this base model: {different[0]}.")
    return adapted.merge_and_unload(safe_merge=True)
