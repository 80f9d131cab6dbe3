"""Many cells: plan, resume, run, keep, seal.

A finished cell is a file of its own before the next one starts, so a run that was killed goes on
where it stood; when all are done their rows are sealed into one file. An executor does the cells'
work; the local pool gives each a process of its own.
"""

import contextlib
import datetime
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from lcbench import isolation, registry, store
from lcbench.config import UsageError, digest
from lcbench.isolation import HUGE_PAGES, WAIT_POLICY, Child, Send, Verdict, call
from lcbench.paths import PACKAGE
from lcbench.store import Row
from lcbench.suite import ANCHOR, Cell, MethodCard, Suite, TaskCard
from lcbench.task import stream

HARNESS_FILES = (
    "config", "method", "blocks", "attention", "chunkwise", "model", "task", "corpus", "sampling",
    "suite", "train", "measure", "environment", "isolation", "cells",
)  # fmt: skip
"""Modules of this package that can change a number; their hash is part of every cell's id."""
WAIT_S = 0.2


class Event(NamedTuple):
    """Something that happened to a cell while it ran."""

    topic: Literal["started", "stage", "report", "finished"]
    cell: Cell
    value: Any
    """The stage's name, the training report's fields, or the finished cell's rows."""


Listener = Callable[[Event], None]


class Executor(Protocol):
    """Where cells are worked on."""

    def run(self, cells: Sequence[Cell], listener: Listener) -> Iterator[tuple[Cell, Verdict]]:
        """Work on cells in order, as far as it can at once, and give each with its verdict.

        Closing the iterator ends what is under way.
        """
        ...


class Setting(NamedTuple):
    """What the rows of one run share."""

    run_id: str
    environment: Mapping[str, Any]
    provenance: Mapping[str, Any]


class Tally(NamedTuple):
    """What a run did."""

    measured: int
    kept: int
    """Cells that were finished before it began."""
    statuses: Mapping[str, int]
    """How many of the measured cells ended how."""
    sealed: Path | None


# Called in a child: torch and the plug-ins are never loaded in the parent.


def _describe(name: str, overrides: str, send: Send) -> list[Any]:
    from lcbench.cells import describe_method

    return list(describe_method(name, overrides))


def _environment(device: str | None, send: Send) -> dict[str, Any]:
    from lcbench.environment import pick_device, read_environment, read_provenance

    settings = {
        "huge_pages": os.environ.get(HUGE_PAGES) == "1",
        "omp_wait_policy": os.environ.get(WAIT_POLICY),
    }
    return {
        "environment": read_environment(pick_device(device), settings),
        "provenance": read_provenance(),
    }


def _work(fields: dict[str, Any], send: Send) -> list[dict[str, Any]]:
    from lcbench.cells import Watcher, check_sources, run_cell

    watcher = Watcher(
        stage=lambda name: send("stage", name),
        report=lambda report: send("report", report._asdict()),
    )
    cell = Cell(**fields)
    check_sources(cell)
    return run_cell(cell, watcher)


def describe_methods(requests: Sequence[tuple[str, str]]) -> list[MethodCard]:
    """Resolve methods and their overrides, each in a process of its own.

    Raises:
        UsageError: An unknown method or field, or a refused value.
    """
    cards: list[MethodCard] = []
    for name, overrides in requests:
        registry.source("method", name)
        verdict = call(_describe, name, overrides)
        if verdict.status == "ok":
            cards.append(MethodCard(*verdict.value))
        else:
            source_hash = registry.source_hash("method", name)
            cards.append(MethodCard(name, "{}", source_hash, verdict.error))
    return cards


def describe_tasks(suite: Suite) -> list[TaskCard]:
    """Cards of a suite's tasks, in its order.

    Raises:
        UsageError: An unknown task or field, a refused value, or a context it does not fit in.
        PluginError: A task file that does not import.
    """
    cards: list[TaskCard] = []
    for plan in suite.tasks:
        spec = registry.load_task(plan.task)
        try:
            config = spec.config().override(plan.config)
            task = spec.build(config, "test")
            for context in {plan.train_context // 2**plan.ramp, *plan.contexts}:
                task.sample(stream({}, "test", 0), 1, context)
        except ValueError as error:
            raise UsageError(f"task {plan.task!r}: {error}") from None
        source_hash = registry.source_hash("task", plan.task)
        cards.append(TaskCard(config.canonical(), spec.version, source_hash, task.data_hash()))
    return cards


def read_setting(device: str | None) -> Setting:
    """Look at the machine, in a child, and name the run.

    Raises:
        UsageError: A device this machine does not have, or a torch that cannot be used.
    """
    verdict = call(_environment, device)
    if verdict.status != "ok":
        raise UsageError(f"this machine's torch cannot be used: {verdict.error}")
    now = datetime.datetime.now(datetime.UTC)
    run_id = f"{now:%Y%m%dT%H%M%S}-{digest(os.urandom(16), 6)}"
    return Setting(run_id, verdict.value["environment"], verdict.value["provenance"])


def harness_hash() -> str:
    """Hash of the code that trains and measures, the anchor that is timed beside included."""
    paths = [PACKAGE / f"{name}.py" for name in HARNESS_FILES]
    paths.append(registry.source("method", ANCHOR).path)
    return digest(b"".join(path.read_bytes().replace(b"\r\n", b"\n") for path in paths))


class LocalPool:
    """Cells on this machine: quality cells side by side, cost cells alone.

    Args:
        jobs: Quality cells at once.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def run(self, cells: Sequence[Cell], listener: Listener) -> Iterator[tuple[Cell, Verdict]]:
        """See `Executor.run`."""
        waiting = deque(cells)
        running: dict[Child, Cell] = {}
        try:
            while waiting or running:
                while waiting and self._fits(waiting[0], running):
                    cell = waiting.popleft()
                    listener(Event("started", cell, None))
                    if cell.load_error is not None:
                        yield cell, _unloaded(cell)
                        continue
                    fields = cell.identity() | {
                        "timeout_s": cell.timeout_s,
                        "threads": cell.threads,
                    }
                    running[Child(_work, (fields,), timeout_s=cell.timeout_s)] = cell
                yield from self._finished(running, listener)
        finally:
            for child in running:
                child.stop("crashed", "interrupted")

    def _fits(self, cell: Cell, running: Mapping[Child, Cell]) -> bool:
        if cell.kind != "quality":
            return not running
        alone = any(other.kind != "quality" for other in running.values())
        return not alone and len(running) < self.jobs

    def _finished(
        self, running: dict[Child, Cell], listener: Listener
    ) -> Iterator[tuple[Cell, Verdict]]:
        connection.wait([w for child in running for w in child.waitables], timeout=WAIT_S)
        for child, cell in list(running.items()):
            for topic, value in child.poll():
                if topic in ("stage", "report"):
                    listener(Event(topic, cell, value))
            verdict = child.verdict()
            if verdict is not None:
                del running[child]
                yield cell, verdict


def _unloaded(cell: Cell) -> Verdict:
    error = isolation.scrub(cell.load_error or "")
    return Verdict("error", None, "load", error, None, None, 0.0)


def compose_rows(cell: Cell, verdict: Verdict, setting: Setting) -> list[Row]:
    """The rows of a finished cell: what was measured, under the identity the plan gave it.

    A cell that failed gives one row at each of its contexts, with its status and reason.
    """
    identity = {
        name: value for name, value in cell.identity().items() if name not in ("recipe", "contexts")
    }
    now = datetime.datetime.now(datetime.UTC)
    shared: Row = {
        "schema_version": store.SCHEMA_VERSION,
        "run_id": setting.run_id,
        "cell_id": cell.cell_id,
        **identity,
        "recipe": cell.recipe,
        "train_context": cell.train_context,
        "wall_s": verdict.wall_s,
        "started_at": now - datetime.timedelta(seconds=verdict.wall_s),
        **setting.environment,
        **setting.provenance,
    }
    if verdict.status == "ok":
        # What the process says of identity, machine or time is overruled by what the parent knows.
        return [{**row, **shared} for row in verdict.value]
    failure: Row = {
        # What a person asked for was checked before: inside a cell it is the plug-in's own error.
        "status": "error" if verdict.status == "usage" else verdict.status,
        "stage": verdict.stage,
        "error": verdict.error,
        "exit_signal": verdict.exit_signal,
    }
    return [shared | failure | {"context": context} for context in cell.contexts]


class Folder:
    """The results of one suite on disk: a journal of finished cells, and sealed files."""

    def __init__(self, root: Path, suite: str) -> None:
        self.path = root / suite
        self.cells = self.path / "cells"
        self.logs = self.path / "logs"

    def prepare(self) -> None:
        """Make sure it can be written.

        Raises:
            UsageError: It cannot.
        """
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            probe = self.cells / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UsageError(
                f"results folder {self.path} cannot be written ({reason});"
                " name another with --results"
            ) from None

    @contextlib.contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Keep other runs out while this one measures: two would share a clock and lose cells.

        Raises:
            UsageError: Another run is writing here.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:
                pass  # Windows has no such lock; its runs are on their own.
            except BlockingIOError:
                raise UsageError(
                    f"another run is writing to {self.path}; wait for it, or name another folder"
                    " with --results"
                ) from None
            yield

    def keep(self, cell: Cell, rows: list[Row], details: str | None) -> None:
        """Write a finished cell; what it printed when it failed goes to a log beside it."""
        store.write_rows(self.cells / f"{cell.cell_id}.parquet", rows)
        if details:
            self.logs.mkdir(exist_ok=True)
            (self.logs / f"{cell.cell_id}.log").write_text(details, encoding="utf-8")

    def seal(self, cells: Sequence[Cell]) -> Path | None:
        """Move the journal's files of these cells into one sealed file; None if there are none."""
        files = [path for c in cells if (path := self.cells / f"{c.cell_id}.parquet").exists()]
        if not files:
            return None
        today = datetime.datetime.now(datetime.UTC).date()
        table, problems = store.read_table(files)
        sealed = store.seal(table, self.path, today)
        for path in set(files) - {path for path, _ in problems}:
            path.unlink(missing_ok=True)
        return sealed


def run_cells(
    cells: Sequence[Cell],
    folder: Folder,
    executor: Executor,
    setting: Setting,
    listener: Listener,
    *,
    finished: Mapping[str, str],
) -> Tally:
    """Run what is not finished, keep each cell as it ends, and seal when all are done.

    Args:
        cells: The plan.
        folder: Where results lie.
        executor: Does the work.
        setting: What the rows share.
        listener: Told of every start, stage, report and finish.
        finished: Cell ids to leave alone.

    Raises:
        OSError: The disk refused a finished cell; those before it are kept.
        KeyboardInterrupt: Passed on after what was under way is ended.
    """
    todo = [cell for cell in cells if cell.cell_id not in finished]
    statuses: dict[str, int] = {}
    work = executor.run(todo, listener)
    try:
        for cell, verdict in work:
            rows = compose_rows(cell, verdict, setting)
            folder.keep(cell, rows, verdict.details)
            worst = next((r["status"] for r in rows if r["status"] != "ok"), "ok")
            statuses[str(worst)] = statuses.get(str(worst), 0) + 1
            listener(Event("finished", cell, rows))
    finally:
        getattr(work, "close", lambda: None)()
    kept = len(cells) - len(todo)
    return Tally(sum(statuses.values()), kept, statuses, folder.seal(cells))
