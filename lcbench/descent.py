"""What a process leaves behind: on Linux nothing outlives the one that answers for it.

A method may fork, and what it forks may step out of its group. Those who keep orphans get such
processes as children when their parents end, and can end them.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_DEATH_SIGNAL, _KEEP_ORPHANS = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER
_IS_LINUX = sys.platform.startswith("linux")


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that forked it ends, whatever it is doing."""
    if _IS_LINUX:
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def keep_orphans() -> None:
    """Become the parent of whatever descends from this process and loses its own parent."""
    if _IS_LINUX:
        ctypes.CDLL(None).prctl(_KEEP_ORPHANS, 1)


def children(pid: int) -> list[int]:
    """Children of a process; none where the system does not list them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in listing.read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    """All that descend from a process, nearest first."""
    found: list[int] = []
    waiting = children(pid)
    while waiting:
        found += waiting
        waiting = [child for parent in waiting for child in children(parent)]
    return found


def kill(*pids: int) -> None:
    """Kill processes that may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """Kill the process group that a process leads."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
