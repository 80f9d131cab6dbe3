"""What machine this is: device, versions, commit. Never a host name, a user or a path."""

import math
import os
import platform
import shutil
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from lcbench import __version__
from lcbench.config import UsageError, digest
from lcbench.paths import checkout
from lcbench.repository import ask_git

DeviceKind = Literal["cpu", "cuda", "mps"]


def available_devices() -> list[DeviceKind]:
    """Kinds of device torch can use here, the fastest first."""
    kinds: list[DeviceKind] = []
    if torch.cuda.is_available():
        kinds.append("cuda")
    if torch.backends.mps.is_available():
        kinds.append("mps")
    return [*kinds, "cpu"]


def pick_device(wanted: str | None) -> DeviceKind:
    """The device to run on: the one asked for, else the fastest there is.

    Raises:
        UsageError: A device this machine or this torch does not have.
    """
    present = available_devices()
    if wanted is None:
        return present[0]
    for kind in present:
        if wanted == kind:
            return kind
    if wanted in ("cuda", "mps"):
        reason = f"torch {torch.__version__} sees no {wanted} device"
        if wanted == "cuda" and torch.version.cuda is None:
            reason = f"torch {torch.__version__} was built without CUDA"
        raise UsageError(f"{reason}; here there is: {', '.join(present)}")
    raise UsageError(f"no device {wanted!r}; there are cuda, mps and cpu")


def usable_cores() -> int:
    """Processor cores this process may use: threads beyond a container's quota only wait for it."""
    cores = allowed_cores()
    quota = core_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def allowed_cores() -> int:
    """Processor cores this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_threads(number: int) -> None:
    """Let torch use so many threads; where it does already, nothing is called.

    After `torch.set_num_threads`, whatever the number, MKL takes other routines for the small
    products within a fused kernel: attention over a window took 1.6 times as long on two cores.
    """
    if torch.get_num_threads() != number:
        torch.set_num_threads(number)


def core_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that a container may use (Linux control groups), or None if unlimited.

    Args:
        root: Where `/sys` and `/proc` lie.
    """
    for folder in control_groups(root):
        try:
            quota, period = _quota_fields(folder)
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            return quota / period
    return None


def control_groups(root: Path = Path("/")) -> list[Path]:
    """Folders of the control groups that may limit this process's processor time, its own first."""
    mount = root / "sys/fs/cgroup"
    own: list[Path] = []
    try:
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                own.append(mount / controllers / path.lstrip("/"))
    except (OSError, ValueError):
        pass
    # A container sees its own group as the root of the tree.
    return list(dict.fromkeys([*own, mount, mount / "cpu"]))


def _quota_fields(folder: Path) -> tuple[int, int]:
    """Microseconds of processor time, and of the period they are for; version 2, else 1."""
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return int(quota), int(period)  # an unlimited quota is the word `max`
    quota, period = (
        (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
    )
    return int(quota), int(period)


def read_environment(device_kind: DeviceKind, settings: dict[str, Any]) -> dict[str, Any]:
    """The environment columns of every row measured here; `settings` are the harness's own."""
    columns: dict[str, Any] = {
        "device_kind": device_kind,
        "device": cpu_name(),
        "device_bytes": psutil.virtual_memory().total,
        "cpu": cpu_name(),
        "threads": usable_cores(),
        "ram_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": None,
        **settings,
    }
    if device_kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        columns["device"] = properties.name
        columns["device_bytes"] = properties.total_memory
        columns["cuda"] = torch.version.cuda
    elif device_kind == "mps":
        columns["device"] = "Apple MPS"
    columns["env_id"] = digest(repr(sorted(columns.items())), 12)
    return columns


def read_provenance() -> dict[str, Any]:
    """The columns that say which code measured: version, commit, whether it had local changes."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "lcbench", "methods", "suites")
    return {
        "lcbench_version": __version__,
        "commit": commit,
        "dirty": None if commit is None else bool(changes),
    }


def cpu_name() -> str:
    """The processor's name."""
    if platform.system() == "Linux":
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 -- not a file on disk
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    root = checkout()
    if root is None or not (root / ".git").exists() or shutil.which("git") is None:
        return None
    answer = ask_git(root, *arguments)
    return None if answer is None else answer.strip()
