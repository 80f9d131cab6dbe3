"""The fastest matrix products and copies of this device, as a cell would make them.

`torch.utils.benchmark` times these: unlike a cell's calls they have no rival to alternate with and
need no fresh inputs, and it knows how often to repeat and when to wait for the device.
"""

from typing import Any

import torch
from torch.utils.benchmark import Timer

from lcbench.environment import DeviceKind, usable_cores, use_threads

SIZES = {"cpu": (512, 1024, 2048, 4096), "mps": (1024, 2048, 4096), "cuda": (2048, 4096, 8192)}
"""Sides of the square matrices; which is fastest differs from machine to machine."""
COPIED_BYTES = {"cpu": 2**28, "mps": 2**28, "cuda": 2**30}
"""Far more than any cache holds."""
DTYPES = ("float32", "bfloat16")
SECONDS = 0.4
"""Time spent on each size, one call at least."""
LONGEST_CALL_S = 2.0
"""A product that took longer is the last: on such a machine the next size takes a minute."""


def measure_peaks(device_kind: DeviceKind) -> dict[str, Any]:
    """Measure the device, in about ten seconds.

    Returns:
        `matmul_flops_per_s`, a mapping from dtype, the best of several sizes; and
        `copy_bytes_per_s`, bytes read and bytes written together.
    """
    use_threads(usable_cores())
    device = torch.device(device_kind)
    return {
        "matmul_flops_per_s": {dtype: _matmul_rate(device, dtype) for dtype in DTYPES},
        "copy_bytes_per_s": _copy_rate(device),
    }


def _matmul_rate(device: torch.device, dtype: str) -> float:
    best = 0.0
    for size in SIZES[device.type]:
        a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
        seconds = _fastest("torch.mm(a, b, out=c)", {"a": a, "b": b, "c": torch.empty_like(a)})
        best = max(best, 2 * size**3 / seconds)
        if seconds > LONGEST_CALL_S:
            break
    return best


def _copy_rate(device: torch.device) -> float:
    source = torch.ones(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)  # written to, so that its pages are there
    return 2 * source.nbytes / _fastest("b.copy_(a)", {"a": source, "b": target})


def _fastest(statement: str, names: dict[str, Any]) -> float:
    """Seconds of a call in the fastest run of calls: what else the machine does only ever adds."""
    names = {"torch": torch, **names}
    timer = Timer(statement, globals=names, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=SECONDS).times)
