"""What can spoil a measurement: other work, throttling, threads, builds; read, and judged.

Readings are taken from the system, null where it does not tell; what they mean is decided by pure
functions, so that each judgement is tested without the machine it is about.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch.backends import cuda as cuda_backends

from lcbench.environment import (
    DeviceKind,
    allowed_cores,
    control_groups,
    core_quota,
    usable_cores,
)

ROOT = Path("/")
BUSY_CORES = 0.3
"""Cores' worth of other work from which timings scatter."""
BUSY_GPU_PERCENT = 5
WATCHED_S = 0.25
SLOWED = {
    0x08: "hardware slowdown",
    0x20: "heat",
    0x40: "heat",
    0x80: "its power supply",
}
"""NVML's reasons for lower clocks that say something is wrong. Its power cap (0x4) is none: large
products run into it on a GPU in perfect health."""
_THROTTLE_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""Present and former name of the same reading."""


# Beside each timing.


class Throttling(NamedTuple):
    """Counters of throttling that only go up; None where the system has none."""

    heat: int | None
    """Times the processor was slowed by its temperature."""
    quota: int | None
    """Times a container was stopped for having used up its processor time."""


def load_average() -> float | None:
    """Processes that wanted a core, averaged over the last minute, lcbench's own among them."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def read_throttling(root: Path = ROOT) -> Throttling:
    """The processor's counters as they stand."""
    pattern = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"
    heat = [count for path in root.glob(pattern) if (count := _integer(path)) is not None]
    quota: int | None = None
    for folder in control_groups(root):
        fields = _fields(folder / "cpu.stat")
        if "nr_throttled" in fields:
            quota = int(fields["nr_throttled"])
            break
    return Throttling(sum(heat) if heat else None, quota)


def was_throttled(before: Throttling, after: Throttling, gpu_reasons: int | None) -> bool | None:
    """Whether anything was slowed down between two readings; None if nobody can tell.

    Args:
        before: Taken when the timing began.
        after: Taken when it ended.
        gpu_reasons: NVML's bits for the GPU's clocks at the end, where one was timed.
    """
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
    if not pairs and gpu_reasons is None:
        return None
    return any(a > b for b, a in pairs) or bool(slowdowns(gpu_reasons))


def slowdowns(gpu_reasons: int | None) -> list[str]:
    """What holds a GPU's clocks down, in words, of NVML's bits."""
    return sorted({word for bit, word in SLOWED.items() if (gpu_reasons or 0) & bit})


def read_gpu_reasons() -> int | None:
    """NVML's bits for why the GPU's clocks are lower than they could be, or None if untold."""
    for field in _THROTTLE_FIELDS:
        lines = _ask_gpu(f"--query-gpu={field}")
        try:
            return int(lines[0], 16)
        except (IndexError, ValueError):
            continue
    return None


def gpu_id(environment: Mapping[str, str]) -> str:
    """The GPU that torch calls `cuda:0`, as `nvidia-smi -i` takes it."""
    return environment.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"


def _ask_gpu(query: str) -> list[str]:
    """Lines that `nvidia-smi` answers; none where it cannot be asked."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, query, "--format=csv,noheader,nounits", "-i", gpu_id(os.environ)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


# Before a run.


class Readings(NamedTuple):
    """What a machine tells of itself before anything runs; None where it does not."""

    device_kind: DeviceKind
    cores: int
    """That lcbench may use."""
    allowed_cores: int
    """That it may be scheduled on."""
    core_quota: float | None
    busy_cores: float
    """Cores' worth of work that others did in a quarter of a second."""
    load_average: float | None
    omp_num_threads: str | None
    is_debug_python: bool
    is_debug_torch: bool
    processor_mhz: tuple[float, float] | None
    """Highest clock the system allows now, and the highest the processor has."""
    cpu_capability: str
    """Torch's name for the vector instructions it found."""
    has_fast_bfloat16: bool
    has_flash_attention: bool
    gpu_processes: int = 0
    """Other processes on the GPU."""
    gpu_busy_percent: int | None = None
    gpu_reasons: int | None = None


def read_machine(device_kind: DeviceKind) -> Readings:
    """Look at the machine for a quarter of a second; before CUDA is used, to see others alone."""
    gpu: dict[str, Any] = {}
    if device_kind == "cuda":
        busy = [line for line in _ask_gpu("--query-gpu=utilization.gpu") if line.isdecimal()]
        gpu = {
            "gpu_processes": len(_ask_gpu("--query-compute-apps=pid")),
            "gpu_busy_percent": int(busy[0]) if busy else None,
            "gpu_reasons": read_gpu_reasons(),
        }
    is_cuda = device_kind == "cuda"
    return Readings(
        device_kind=device_kind,
        cores=usable_cores(),
        allowed_cores=allowed_cores(),
        core_quota=core_quota(),
        busy_cores=psutil.cpu_percent(WATCHED_S) / 100 * (os.cpu_count() or 1),
        load_average=load_average(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        is_debug_python=hasattr(sys, "gettotalrefcount"),
        is_debug_torch=bool(torch.version.debug),
        processor_mhz=_clock_limits(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        has_fast_bfloat16=(
            torch.cuda.is_bf16_supported(including_emulation=False)
            if is_cuda
            else bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        ),
        has_flash_attention=not is_cuda or cuda_backends.is_flash_attention_available(),
        **gpu,
    )


def complaints(readings: Readings) -> list[str]:
    """What is wrong with a machine for measuring, each with what to do about it."""
    found = (_crowding(readings), _threads(readings), _builds(readings), _slowness(readings))
    return [sentence for sentences in found for sentence in sentences]


def _crowding(readings: Readings) -> list[str]:
    sentences: list[str] = []
    if readings.busy_cores >= BUSY_CORES:
        average = readings.load_average
        load = "" if average is None else f" (load average {average:.1f})"
        sentences.append(
            f"other work keeps {readings.busy_cores:.1f} of {readings.allowed_cores} cores"
            f" busy{load}: timings will scatter; wait for it, or end it"
        )
    if readings.gpu_processes or (readings.gpu_busy_percent or 0) > BUSY_GPU_PERCENT:
        busy = f", {readings.gpu_busy_percent} % busy" if readings.gpu_busy_percent else ""
        sentences.append(
            f"{readings.gpu_processes or 'unseen'} other processes are on the GPU{busy}: they take"
            " its time and memory; end them, or choose another with CUDA_VISIBLE_DEVICES"
        )
    return sentences


def _threads(readings: Readings) -> list[str]:
    sentences: list[str] = []
    quota, wanted = readings.core_quota, readings.omp_num_threads or ""
    if quota is not None and quota < readings.allowed_cores:
        sentences.append(
            f"this container may use {quota:g} of its {readings.allowed_cores} cores, so lcbench"
            f" runs {readings.cores} threads; a quota stops them now and then: pin cores instead"
            " (docker --cpuset-cpus)"
        )
    if wanted.isdecimal() and int(wanted) > readings.cores:
        sentences.append(
            f"OMP_NUM_THREADS is {wanted} on {readings.cores} usable cores: threads wait for one"
            " another; unset it"
        )
    return sentences


def _builds(readings: Readings) -> list[str]:
    sentences: list[str] = []
    if readings.is_debug_python:
        sentences.append("this Python is a debug build, several times slower; use a release build")
    if readings.is_debug_torch:
        sentences.append("this torch is a debug build; install a release: pip install torch")
    if readings.cpu_capability in ("DEFAULT", "NO AVX"):
        sentences.append(
            "torch uses no vector instructions on this processor; unset ATEN_CPU_CAPABILITY, or"
            " measure elsewhere"
        )
    if not readings.has_fast_bfloat16:
        sentences.append(
            f"this {'GPU' if readings.device_kind == 'cuda' else 'processor'} has no bfloat16"
            " arithmetic: runs in it are slower than they need be; use --dtype float32"
        )
    if not readings.has_flash_attention:
        sentences.append(
            "this torch has no flash attention for the GPU, so fused attention falls back to slower"
            " kernels; install a build of torch made for this GPU"
        )
    return sentences


def _slowness(readings: Readings) -> list[str]:
    sentences: list[str] = []
    if readings.processor_mhz and readings.processor_mhz[0] < 0.99 * readings.processor_mhz[1]:
        now, most = readings.processor_mhz
        sentences.append(
            f"the processor's clock is limited to {now:,.0f} of {most:,.0f} MHz; plug the machine"
            " in, or choose the performance profile"
        )
    if words := slowdowns(readings.gpu_reasons):
        sentences.append(
            f"the GPU is slowed down by {' and '.join(words)}; let it cool, and see"
            " nvidia-smi -q -d PERFORMANCE"
        )
    return sentences


def _clock_limits(root: Path = ROOT) -> tuple[float, float] | None:
    folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
    limits = [_integer(folder / f"{name}_max_freq") for name in ("scaling", "cpuinfo")]
    if limits[0] is None or limits[1] is None:
        return None
    return limits[0] / 1e3, limits[1] / 1e3


def _integer(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _fields(path: Path) -> dict[str, str]:
    """Lines of a name and a value, as the kernel writes them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split(maxsplit=1) for line in lines if " " in line)
