"""Memory that a model and a run need, and memory that is available, in bytes.

Estimates are upper bounds of what is allocated at one moment, computed from sizes alone; nothing is loaded.
"""

import copy
import os
from pathlib import Path
from typing import Any

from interp.errors import MemoryBudgetExceeded
from interp.models.model import ModelFacts

ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
DIGITS = {"float32": "seven", "bfloat16": "two to three"}
"""Significant decimal digits of the dtypes that are proposed where another one does not fit, the most exact first."""

USABLE = 0.9
"""Share of the free memory that a run may take: what else the machine does needs some, and estimates may be a little low."""

LIBRARY_BYTES = 20 << 20
"""What is taken whatever the sizes (measured): 16 MiB that matrix libraries keep for themselves from their first product on, and up to
4 MiB of freed blocks that the C library's allocator keeps, which differs from run to run."""


def check_device_and_dtype(device: str, dtype: str) -> None:
    """Raises ValueError for a device that is not available, or an unsupported dtype."""
    import torch

    if dtype not in ITEM_BYTES:
        raise ValueError(f"dtype={dtype!r} is not one of: {', '.join(sorted(ITEM_BYTES))}.")
    mps = ["mps"] if torch.backends.mps.is_available() else []
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *mps]
    if device not in here and not (device == "cuda" and "cuda:0" in here):
        raise ValueError(f"device={device!r} is not available. This machine has: {', '.join(here)}.")


def load_bytes(config: Any, dtype: str, loader: Any = None) -> int:
    """Bytes of all parameters in ``dtype``, plus the largest one again (it is converted while being read). ``loader`` is
    transformers' class that builds the model, by default ``AutoModelForCausalLM``."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty = (loader or AutoModelForCausalLM).from_config(copy.deepcopy(config), trust_remote_code=False)
    sizes = [p.numel() for p in empty.parameters()]
    return (sum(sizes) + max(sizes)) * ITEM_BYTES[dtype]


def check_load(name: str, config: Any, dtype: str, device: str = "cpu", loader: Any = None) -> None:
    """Raises MemoryBudgetExceeded when the weights of ``name`` in ``dtype`` need more than is available in the machine's memory, into
    which they are read, or on ``device``; the message names a dtype that fits. Nothing is allocated."""
    needed = load_bytes(config, dtype, loader)
    available, place = min((available_memory(place), place) for place in ("cpu", device))
    if needed > available:
        sizes = f"needs about {format_bytes(needed)}, and {format_bytes(available)} are available on {place}"
        raise MemoryBudgetExceeded(f"Loading {name} in {dtype} {sizes}: {_what_fits(needed, dtype, available)}.")


def _what_fits(needed: int, dtype: str, available: int) -> str:
    """The most exact dtype in which weights of ``needed`` bytes in ``dtype`` fit, and what it changes; else what is left to do."""
    sizes = {
        other: needed * ITEM_BYTES[other] // ITEM_BYTES[dtype] for other in DIGITS if ITEM_BYTES[other] < ITEM_BYTES[dtype]
    }
    for other, size in sizes.items():
        if size <= available:
            share = "half" if 2 * size >= needed - 1 else "a quarter"
            how = f"--dtype {other} (in Python dtype={other!r}) needs {share}, {format_bytes(size)}"
            return f"{how}, and rounds weights and activations to {DIGITS[other]} significant digits"
    too_much = f"even bfloat16 needs {format_bytes(sizes['bfloat16'])}; " if sizes else ""
    how = "--device-map auto --max-memory 0=40GiB,cpu=20GiB"
    return f"{too_much}free memory, choose a smaller model, or divide this one among devices ({how})"


def activation_bytes(facts: ModelFacts, n_tokens: int) -> int:
    """Bytes allocated at once inside a block for ``n_tokens``: residual, MLP, queries to outputs."""
    return n_tokens * (8 * facts.d_model + 4 * facts.d_mlp + 6 * facts.n_heads * facts.d_head) * ITEM_BYTES[facts.dtype]


def workspace_bytes(facts: ModelFacts) -> int:
    """Bytes of workspace that matrix products use to pack the largest matrix; measured as up to five times its size."""
    return 5 * facts.d_model * max(facts.d_mlp, facts.n_heads * facts.d_head) * ITEM_BYTES[facts.dtype]


def forward_bytes(facts: ModelFacts, batch: int, length: int, *, patterns: bool = True, all_logits: bool = True) -> int:
    """Bytes that one forward pass of ``batch`` x ``length`` tokens needs in addition to the weights, without gradients.
    Workspace, one block's activations, the logits of all (or of the last) tokens and, with eager attention (``patterns``), 2.1 float32
    patterns of one layer, which is the measured peak of scores and softmax."""
    tokens = batch * length
    logits = (tokens if all_logits else batch) * facts.d_vocab * ITEM_BYTES[facts.dtype]
    attention = int(2.1 * 4 * facts.n_heads * tokens * length) if patterns else 0
    return workspace_bytes(facts) + activation_bytes(facts, tokens) + logits + attention


def available_memory(device: str = "cpu") -> int:
    """Bytes available on ``device``: nine tenths of the smaller of what the system and this process's control group leave."""
    if device.startswith("cuda"):
        import torch

        return int(USABLE * torch.cuda.mem_get_info(device)[0])
    return int(USABLE * min([_system_memory(), *_control_group_memory()]))


def check_budget(needed: int, budget: int | None = None, what: str = "This run") -> None:
    """Raises MemoryBudgetExceeded, stating both, when ``needed`` bytes are more than ``budget`` (default: the available memory)."""
    allowed = available_memory() if budget is None else budget
    if needed > allowed:
        source = "are available" if budget is None else "is the budget"
        sizes = f"{what} needs about {format_bytes(needed)}, and {format_bytes(allowed)} {source}"
        raise MemoryBudgetExceeded(f"{sizes}: use a smaller dtype, batch or length, or allow more.")


def _system_memory() -> int:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_group_memory(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that the control group leaves (empty without a limit). Reclaimable file pages do not count as used."""
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            allowed, taken = int((root / limit).read_text()), int((root / used).read_text())
            stat = dict(line.split() for line in (root / used).with_name("memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        return [allowed - taken + int(stat.get("inactive_file", 0))]
    return []


def format_bytes(count: int) -> str:
    """A byte count for display: ``1.5 GiB``."""
    size, unit = float(max(count, 0)), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.3g} {unit}" if size < 999.5 else f"{size:.0f} {unit}"
