"""A look into one cell: torch's profiler around a few of its steps, as a trace and a short table.

The profiler is imported in the cell's own process alone: its import takes longer than most cells.
"""

import contextlib
import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lcbench.config import UsageError
from lcbench.isolation import Send, call
from lcbench.suite import Cell

STEPS = 3
"""Training steps in a trace: one would show the first step's allocations alone."""
WARM_UPS = 2
MOST_OPERATIONS = 10
SHORTEST_ID = 4
"""Characters of an id from which it is taken for one."""
SHOWN_ID = 8
MOST_TOLD = 4


class Operation(NamedTuple):
    """What one kind of operation took, the operations it called apart."""

    name: str
    calls: int
    self_ms: float


class Profile(NamedTuple):
    """Where the time of a cell goes."""

    path: Path
    """A Chrome trace, compressed."""
    what: str
    """What was traced, in words."""
    total_ms: float
    """Of all operations together."""
    operations: list[Operation]
    """Those that took longest, in order."""


def choose_cell(cells: Sequence[Cell], name: str) -> Cell:
    """The cell of a plan that a name means: its label or the start of it, or the start of its id.

    Case and punctuation of a label do not matter: `vanilla mqar` is `vanilla · mqar · seed 0`.

    Raises:
        UsageError: It means none, or several.
    """
    wanted = _plain(name)
    labels = [_plain(cell.label) for cell in cells]
    named = list(zip(labels, cells, strict=True))
    found = (
        [cell for label, cell in named if label == wanted]
        or [c for c in cells if len(name) >= SHORTEST_ID and c.cell_id.startswith(name)]
        or [cell for label, cell in named if wanted and f"{label} ".startswith(f"{wanted} ")]
    )
    if len(found) == 1:
        return found[0]
    if found:
        told = [f"{cell.label} ({cell.cell_id[:SHOWN_ID]})" for cell in found[:MOST_TOLD]]
        more = ", ..." if found[MOST_TOLD:] else ""
        raise UsageError(
            f"{name!r} can be any of {len(found)} cells: {', '.join(told)}{more};"
            " give a full name, or the id"
        )
    near = difflib.get_close_matches(wanted, labels, n=MOST_TOLD, cutoff=0.3)
    nearest = f"; nearest are: {', '.join(near)}" if near else ""
    raise UsageError(f"no cell {name!r} in this plan{nearest}. --dry-run lists them all")


def _plain(label: str) -> str:
    """A label's words in lower case; digits lose their commas."""
    return " ".join(re.findall(r"[a-z0-9:=.-]+", label.lower().replace(",", "")))


def profile_cell(cell: Cell, folder: Path) -> Profile:
    """Trace a cell in a process of its own.

    Args:
        cell: Of a plan.
        folder: Of the suite's results; the trace goes into `profiles` there.

    Raises:
        RuntimeError: The cell did not get that far, or its trace cannot be written.
    """
    if cell.load_error is not None:
        raise RuntimeError(f"{cell.label} cannot be loaded: {cell.load_error}")
    stem = re.sub(r"[^a-z0-9.-]+", "-", _plain(cell.label))
    path = folder / "profiles" / f"{stem}-{cell.cell_id[:SHOWN_ID]}.json.gz"
    unfinished = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = cell.identity() | {"timeout_s": cell.timeout_s, "threads": cell.threads}
        verdict = call(_profile, fields, str(unfinished), timeout_s=cell.timeout_s)
        if verdict.status != "ok":
            stage = f" in {verdict.stage}" if verdict.stage else ""
            raise RuntimeError(f"{cell.label} ended as {verdict.status}{stage}: {verdict.error}")
        unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RuntimeError(f"the trace cannot be written to {path}: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    what = f"{STEPS} training steps" if cell.kind == "quality" else f"one {cell.kind} call"
    operations = [Operation(*fields) for fields in verdict.value["operations"]]
    return Profile(path, what, verdict.value["total_ms"], operations)


def _profile(fields: dict[str, Any], path: str, send: Send) -> dict[str, Any]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    from lcbench.cells import Watcher, check_sources, prepare_call
    from lcbench.measure import synchronize

    cell = Cell(**fields)
    check_sources(cell)
    watcher = Watcher(stage=lambda name: send("stage", name), report=lambda report: None)
    run = prepare_call(cell, watcher, STEPS)
    device = torch.device(cell.device_kind)
    send("stage", "measure")
    for _ in range(WARM_UPS):
        run()
    synchronize(device)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        run()
        synchronize(device)
    profiler.export_chrome_trace(path)
    times = [
        (event.key, event.count, _self_us(event, on_gpu=on_gpu) / 1e3)
        for event in profiler.key_averages()
    ]
    times.sort(key=lambda operation: -operation[2])
    total_ms = sum(self_ms for _, _, self_ms in times)
    return {"total_ms": total_ms, "operations": times[:MOST_OPERATIONS]}


def _self_us(event: Any, *, on_gpu: bool) -> float:
    """Microseconds on the device the cell runs on, without those of the operations called."""
    return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)
