"""GGUF files: quantised weights with their configuration and tokenizer, which transformers dequantises on loading."""

from collections import Counter
from pathlib import Path

from interp.errors import ModelUnavailable
from interp.files import user_path
from interp.models.lora_adapter import is_adapter_folder
from interp.models.optional_packages import need_packages


def find_gguf(name: str, folder: Path) -> Path | None:
    """The GGUF file that ``name`` is, or the only one in its folder where that has no config.json and no adapter; None for other
    models. Raises ModelUnavailable for a folder of several, and when a package is missing that reads them."""
    file = user_path(name)
    if file.suffix != ".gguf":
        is_other = (folder / "config.json").exists() or is_adapter_folder(folder)
        files = [] if is_other else sorted(folder.glob("*.gguf"))
        if not files:
            return None
        if len(files) > 1:
            raise ModelUnavailable(f"{folder} holds {len(files)} GGUF files: give one of them, such as {files[0]}.")
        file = files[0]
    need_packages(f"{name} holds quantised weights in a GGUF file, and reading them", "gguf", "gguf", "accelerate")
    return file


def gguf_form(file: Path) -> str:
    """The number formats in a GGUF file, that of the most weights first, as ``weights_form`` of a model."""
    from gguf import GGUFReader  # pyright: ignore[reportMissingImports]

    weights: Counter[str] = Counter()
    for tensor in GGUFReader(file).tensors:
        weights[tensor.tensor_type.name] += int(tensor.n_elements)
    return f"dequantised from {', '.join(kind for kind, _ in weights.most_common())} (GGUF)"
