"""Memory of children at work: who holds how much, and who is stopped before there is none left."""

import contextlib
from collections.abc import Sequence

import psutil

from lcbench import descent
from lcbench.isolation import Child

LEAST_FREE_SHARE = 0.03
"""Share of the machine's memory below which a child is stopped before the kernel picks a victim."""


def watch_memory(children: Sequence[Child], most_bytes: int | None = None) -> None:
    """Stop children before the machine runs out of memory, and those that hold too much.

    When the machine has less than `LEAST_FREE_SHARE` of its memory left, the largest child is
    stopped, if that would help: if it holds more than that share itself. The others go on.

    Args:
        children: Those under way.
        most_bytes: The most that one may hold; None for as much as there is.
    """
    memory = psutil.virtual_memory()
    reserve = LEAST_FREE_SHARE * memory.total
    is_short = memory.available < reserve
    if not (is_short or most_bytes):
        return
    held = {child: _held_bytes(child.pid) for child in children if child.under_way}
    for child, count in held.items():
        if most_bytes and count > most_bytes:
            child.stop("oom", f"stopped at {_gib(count)}: a cell may hold {_gib(most_bytes)}")
    largest = max(held, key=lambda child: held[child], default=None)
    if is_short and largest and largest.under_way and held[largest] > reserve:
        rest = sum(held.values()) - held[largest]
        error = f"stopped at {_gib(held[largest])}: the machine had {_gib(memory.available)} left"
        beside = f" and other cells held {_gib(rest)}" if rest else ""
        largest.stop("oom", error + beside)


def _held_bytes(pid: int) -> int:
    """Memory of a process and all it started, what they share counted once."""
    members = [pid, *descent.descendants(pid)]
    total = 0
    for member in members:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(member)
            total += process.memory_info().rss if len(members) == 1 else _own_share(process)
    return total


def _own_share(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return getattr(info, "pss", info.uss)


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
