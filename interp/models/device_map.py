"""Where the layers of a model are placed by transformers and accelerate, instead of all on one device."""

from collections.abc import Mapping
from typing import Any

from interp.errors import MemoryBudgetExceeded
from interp.models.optional_packages import need_packages


def placement(
    device: str, device_map: str | Mapping[str, Any] | None, max_memory: str | Mapping[int | str, int | str] | None = None
) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` for a device map; none without one. Raises ValueError for ``max_memory`` alone and beside
    another device than the CPU, ModelUnavailable without accelerate."""
    if device_map is None:
        if max_memory is not None:
            raise ValueError("max_memory belongs to a device_map: give device_map='auto' as well.")
        return {}
    if device != "cpu" and device_map != {"": device}:
        raise ValueError(f"device={device!r} and device_map={device_map!r} both place the model: give one of them.")
    need_packages(f"device_map={device_map!r}", "accelerate", "accelerate")
    chosen = device_map if isinstance(device_map, str) else dict(device_map)
    allowed = read_max_memory(max_memory) if isinstance(max_memory, str) else dict(max_memory or {})
    return {"device_map": chosen} | ({"max_memory": allowed} if allowed else {})


def read_max_memory(text: str) -> dict[int | str, int | str]:
    """Memory by device, written as ``0=10GiB,cpu=20GiB``. Raises ValueError for anything else."""
    allowed: dict[int | str, int | str] = {}
    for part in text.split(","):
        device, equals, amount = (word.strip() for word in part.partition("="))
        if not (device and equals and amount):
            raise ValueError(f"max_memory={text!r} is not memory by device: write 0=10GiB,cpu=20GiB.")
        allowed[int(device) if device.isdigit() else device] = amount
    return allowed


def check_placed(hf: Any, name: str) -> None:
    """Raises MemoryBudgetExceeded where layers were left out of the devices: their weights could neither be checked nor read."""
    if left_out := [key for key, weight in hf.named_parameters() if weight.is_meta]:
        raise MemoryBudgetExceeded(
            f"{name} does not fit on the devices of its map: {len(left_out)} weights, {left_out[0]} first, would be moved in for every "
            f"pass. Use a smaller dtype, or allow more in max_memory."
        )
