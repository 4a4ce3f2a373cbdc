"""What the benchmarks share: a clock, a memory meter, and where results are written."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Median wall-clock seconds of a call that has been made before, so that nothing is loaded while the clock runs."""
    return statistics.median(once(function)[0] for _ in range(repeats))


def ratios(slow: Callable[[], Any], fast: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """How many times longer ``slow`` takes, by the wall clock and in processor time (what the work costs on a busy machine).

    The two take turns, ``fast`` before and after every ``slow``, since machines change their speed within minutes; medians over the turns.
    """
    found = []
    for _ in range(repeats):
        before, long, after = once(fast), once(slow), once(fast)
        found.append([2 * long[i] / (before[i] + after[i]) for i in (0, 1)])
    return statistics.median(wall for wall, _ in found), statistics.median(cpu for _, cpu in found)


def peak_bytes(function: Callable[[], Any]) -> int:
    """Bytes by which resident memory rises at most during a call; measured in a forked child, so that nothing is left over."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed but kept must not hide what the call takes
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        function()
        os.write(write, str(_status("VmHWM") - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    return int(os.read(read, 64) or b"-1")


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Writes ``results/NAME.json`` with the machine it was made on, and prints the rows."""
    import torch

    RESULTS.mkdir(exist_ok=True)
    machine = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    machine["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    content = {"command": f"python benchmarks/bench_{name}.py", "machine": machine, "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    show(rows)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints rows of numbers."""
    for row in rows:
        print(
            " | ".join(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}" for key, value in row.items())
        )


def once(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def _status(field: str) -> int:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) * 1024
