"""What this machine can do at best, measured once and kept beside its results.

A file for each environment, `machine-<env_id>.json`: another torch, or another number of cores, is
another machine. Rows carry the figures, so that what was published stands by itself.
"""

import datetime
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lcbench.isolation import Send, call

LONGEST_S = 600.0


class Peaks(NamedTuple):
    """The fastest this machine was seen to multiply matrices and to copy."""

    matmul_flops_per_s: Mapping[str, float]
    """By dtype: floating-point operations a second of square matrix products, the best size."""
    copy_bytes_per_s: float
    """Bytes read and bytes written together."""
    measured_at: str
    """UTC, ISO 8601."""

    def columns(self, dtype: str) -> dict[str, Any]:
        """What rows measured in a dtype carry of it."""
        return {
            "matmul_flops_per_s": self.matmul_flops_per_s.get(dtype),
            "copy_bytes_per_s": self.copy_bytes_per_s,
        }


def describe(peaks: Peaks | None) -> str:
    """Peaks in one line."""
    if peaks is None:
        return "not measured; lcbench env --measure does, for the roofline share"
    rates = [
        f"{dtype} {rate / 1e9:,.0f} GFLOP/s" for dtype, rate in peaks.matmul_flops_per_s.items()
    ]
    copied = f"copies {peaks.copy_bytes_per_s / 1e9:,.1f} GB/s"
    return f"matrix products {', '.join(rates)}; {copied}; measured {peaks.measured_at}"


def measure(device_kind: str) -> Peaks:
    """Measure this machine, in a process like a cell's.

    Raises:
        RuntimeError: The device could not do it.
    """
    verdict = call(_measure, device_kind, timeout_s=LONGEST_S)
    if verdict.status != "ok":
        raise RuntimeError(f"the machine's peaks could not be measured: {verdict.error}")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Peaks(**verdict.value, measured_at=now)


def _measure(device_kind: Any, send: Send) -> dict[str, Any]:
    from lcbench.peaks import measure_peaks

    return measure_peaks(device_kind)


def write(peaks: Peaks, folder: Path, env_id: str) -> Path:
    """Keep what was measured in a folder of results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"machine-{env_id}.json"
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(peaks._asdict(), indent=2) + "\n", encoding="utf-8")
    return unfinished.replace(path)


def read(folders: Iterable[Path], env_id: str) -> Peaks | None:
    """What was measured of an environment, from the first folder that has it.

    None where it was never measured, or where the file is damaged: measuring again mends it.
    """
    for folder in folders:
        try:
            fields = json.loads((folder / f"machine-{env_id}.json").read_text(encoding="utf-8"))
            rates = {str(dtype): float(r) for dtype, r in fields["matmul_flops_per_s"].items()}
            return Peaks(rates, float(fields["copy_bytes_per_s"]), str(fields["measured_at"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None
