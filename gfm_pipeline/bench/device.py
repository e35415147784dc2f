"""What the device can do, and a clock that waits for it."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

_PROC = Path("/proc/self")


def now(device: torch.device) -> float:
    """Return the time in seconds when everything started on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(work: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Return the seconds of each of `repeats` runs, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        began = now(device)
        work()
        seconds.append(now(device) - began)
    return seconds


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product, the best of several: what nothing on this device exceeds by much."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return float(2 * side**3 / min(timed(lambda: a @ b, device, 10)))


def describe(device: torch.device) -> str:
    """Return the name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def reset_peak(device: torch.device) -> None:
    """Forget the peak of memory so far, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (_PROC / "clear_refs").exists():
        try:
            (_PROC / "clear_refs").write_text("5")
        except OSError:
            return  # the peak is then that of the whole process, an upper bound


def peak_bytes(device: torch.device) -> int:
    """Return the peak since `reset_peak`: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = _PROC / "status"
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
