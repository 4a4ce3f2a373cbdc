"""Whether a model folder is complete, from file names, sizes and headers; no weights are loaded."""

import json
from pathlib import Path
from typing import Any

from interp.errors import ModelUnavailable

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


def check_folder(folder: Path) -> None:
    """Raises ModelUnavailable unless ``folder`` holds a readable config.json and all of its weight files, not truncated."""
    if not folder.is_dir():
        raise ModelUnavailable(f"There is no folder {folder}.")
    read_json(folder / "config.json")
    for file in _weight_files(folder):
        if not file.is_file():
            raise ModelUnavailable(f"{folder} is incomplete: its index names {file.name}, which is missing.")
        if file.suffix == ".safetensors":
            check_length(file)


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``. Raises ModelUnavailable when it is missing or anything else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelUnavailable(f"{file.parent} is not a model folder: it has no {file.name}.") from None
    except ValueError as error:
        raise ModelUnavailable(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{file} holds a JSON {type(value).__name__} where an object is required.")
    return value


def check_length(file: Path) -> None:
    """Raises ModelUnavailable when the length of a safetensors file differs from its header, or it has no header."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            n_header = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(n_header, size)))
        needed = 8 + n_header + max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable(f"{file} is not a safetensors file, or its header is cut off ({size:,} bytes).") from error
    if needed != size:
        raise ModelUnavailable(f"{file} is damaged: it has {size:,} bytes where its header needs {needed:,}. Copy it again.")


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise ModelUnavailable(f"{index} has no weight_map that lists the weight files.")
            return [_shard(index, name) for name in sorted({*map(str, shards.values())})]
        if (folder / name).is_file():
            return [folder / name]
    raise ModelUnavailable(f"{folder} has a config.json but no weights: none of {', '.join(WEIGHTS)} or an index of shards.")


def _shard(index: Path, name: str) -> Path:
    """The path of a weight file that an index names. Raises ModelUnavailable when it leads out of the folder."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise ModelUnavailable(f"{index} names the weight file {name[:80]!r}, which is not in its folder.")
    return index.parent / name
