"""Where cells are worked on: the executors' interface, and the pool of processes that is the first.

An executor knows cells and verdicts, which are plain data, and nothing of folders or rows: it may
work on another machine as well as on this one.
"""

import time
from collections.abc import Mapping
from multiprocessing import connection
from typing import Any, Literal, NamedTuple, Protocol

from lcbench import errands
from lcbench.estimate import estimate_device_bytes
from lcbench.isolation import Child
from lcbench.locks import MachineLock
from lcbench.memory import watch_memory
from lcbench.suite import Cell

DEVICE_SHARE = 0.85
"""Share of a GPU's memory that cells side by side may be expected to take."""


class News(NamedTuple):
    """What an executor has to tell of a cell: a stage, a training report, or its verdict."""

    cell: Cell
    topic: Literal["stage", "report", "verdict"]
    value: Any


class Executor(Protocol):
    """Submit a cell, collect what becomes of it.

    The caller claims a cell before it submits it, composes rows from its verdict and keeps them; it
    asks for an `obstacle` right before each `submit`, and closes the executor however the run ends.
    A cell goes out as its fields and comes back as a `Verdict`, both of plain JSON values.

    One for Ray would `submit` by calling a remote function with the cell's fields, whose body is
    `errands.measure`, and `collect` with `ray.wait`; a worker that is lost gives the
    verdict `crashed`. A cost cell asks for a whole node, and its verdict must come with the
    environment of the machine that measured. One for SLURM needs no process of its own for long:
    each task of a job array runs `lcbench run --shard K/N` into a folder, with `LocalPool`, and
    `lcbench merge` seals what they made.
    """

    def obstacle(self, cell: Cell) -> str | None:
        """Why it cannot start this cell now; None if it can. It may make room in the asking."""
        ...

    def submit(self, cell: Cell) -> None:
        """Start a cell, to which there was no obstacle."""
        ...

    def collect(self, timeout_s: float) -> list[News]:
        """What happened since the last call; waits up to `timeout_s` for something to happen.

        Each cell gets one verdict, its last news.
        """
        ...

    def close(self) -> None:
        """End what is under way, without verdicts."""
        ...


class LocalPool:
    """Cells on this machine: quality cells side by side, cost cells alone, among all runs on it.

    Args:
        jobs: Quality cells at once.
        cell_bytes: Most memory that a cell may hold; None for as much as there is.
        device_bytes: Memory of the GPU they share; None on a CPU.
        machine: What runs on this machine take turns by.
    """

    def __init__(
        self,
        jobs: int,
        *,
        cell_bytes: int | None = None,
        device_bytes: int | None = None,
        machine: MachineLock | None = None,
    ) -> None:
        self.jobs, self.cell_bytes, self.device_bytes = jobs, cell_bytes, device_bytes
        self._machine = machine or MachineLock()
        self._running: dict[Child, Cell] = {}
        self._accompanied: set[Child] = set()
        """Those that another cell ran beside for some time."""
        self._again: list[Cell] = []
        """Cells that lost the fork server while others ran, to be tried once more, each alone."""
        self._is_alone = False

    def obstacle(self, cell: Cell) -> str | None:
        """See `Executor.obstacle`; takes the machine for a cost cell, or a share of it."""
        running = list(self._running.values())
        if self._again or self._is_alone:
            return "a cell that lost its fork server is tried again, alone"
        if running and any(c.kind != "quality" for c in (cell, *running)):
            return "a cost cell runs alone"
        if len(running) >= self.jobs:
            return f"{self.jobs} cells run at once"
        if running and self.device_bytes is not None:
            asked = sum(estimate_device_bytes(c) for c in (cell, *running))
            if asked > DEVICE_SHARE * self.device_bytes:
                return "the GPU has no room for one more"
        if not self._machine.enter(alone=cell.kind != "quality"):
            return "another lcbench run has the machine"
        return None

    def submit(self, cell: Cell) -> None:
        """See `Executor.submit`."""
        fields = cell.identity() | {"timeout_s": cell.timeout_s, "threads": cell.threads}
        self._running[Child(errands.measure, (fields,), timeout_s=cell.timeout_s)] = cell
        if len(self._running) > 1:
            self._accompanied.update(self._running)

    def collect(self, timeout_s: float) -> list[News]:
        """See `Executor.collect`."""
        if self._again and not self._running:
            self.submit(self._again.pop())
            self._is_alone = True
        if not self._running:
            self._machine.leave()
            time.sleep(timeout_s)
            return []
        connection.wait([w for child in self._running for w in child.waitables], timeout=timeout_s)
        news = [
            News(cell, topic, value)
            for child, cell in self._running.items()
            for topic, value in child.poll()
            if topic in ("stage", "report")
        ]
        watch_memory(list(self._running), self.cell_bytes)
        ended = {child: verdict for child in self._running if (verdict := child.verdict())}
        for child, verdict in ended.items():
            cell = self._running.pop(child)
            if verdict.lost_server and child in self._accompanied:
                # Any of those beside it may be the one that ended the server.
                self._again.append(cell)
            else:
                news.append(News(cell, "verdict", verdict))
            self._accompanied.discard(child)
        if not self._running:
            self._is_alone = False
            if not self._again:
                self._machine.leave()
        return news

    def close(self) -> None:
        """See `Executor.close`."""
        for child in self._running:
            child.stop("crashed", "interrupted")
        self._running.clear()
        self._accompanied.clear()
        self._again.clear()
        self._is_alone = False
        self._machine.close()


def default_jobs(environment: Mapping[str, Any], threads: int) -> int:
    """Quality cells at once unless a person says otherwise: one a CPU core, one on a GPU."""
    if environment["device_kind"] != "cpu":
        return 1
    return max(1, int(environment["threads"]) // max(1, threads))
