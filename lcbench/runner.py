"""Many cells: describe, claim, run, keep, seal.

A finished cell is a file of its own before the next one starts, so a run that was killed goes on
where it stood; when all are done their rows are sealed into one file. Runs in one folder share its
cells: each is claimed before it is worked on. An executor does the work.
"""

import datetime
import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

from lcbench import confinement, errands, registry, store
from lcbench.config import UsageError, digest
from lcbench.failures import scrub
from lcbench.isolation import Verdict, call
from lcbench.journal import Finished, Visit
from lcbench.paths import PACKAGE
from lcbench.places import Place
from lcbench.pool import Executor
from lcbench.store import Row
from lcbench.suite import (
    ANCHOR,
    NOT_TRIED,
    Cell,
    MethodCard,
    Suite,
    TaskCard,
    shortest_example,
    too_long,
)
from lcbench.task import stream

HARNESS_FILES = (
    "config", "method", "blocks", "blockwise", "fused_band", "attention", "block_sparse",
    "distance_bias", "chunkwise", "model", "parts", "task", "corpus", "code_words", "sampling",
    "suite", "train", "generation", "curve", "measure", "counting", "noise", "environment",
    "descent", "confinement", "confined", "isolation", "failures", "errands", "references", "guard",
    "contract", "cost", "cells",
)  # fmt: skip
"""Modules of this package that can change a number; their hash is part of every cell's id."""
WAIT_S = 0.2
LOOK_S = 0.5
"""How often a run that has nothing else to do looks after the cells another works on."""
TELL_S = 2.0
"""How long a run is idle before it says why."""


class Event(NamedTuple):
    """Something that happened to a cell of a run.

    `shared`: another run measured it meanwhile. `waiting`: it cannot start, for the reason given.
    """

    topic: Literal["started", "stage", "report", "finished", "shared", "waiting"]
    cell: Cell
    value: Any
    """The stage's name, the training report's fields, the finished cell's rows, or a reason."""


Listener = Callable[[Event], None]


class Setting(NamedTuple):
    """What the rows of one run share."""

    run_id: str
    environment: Mapping[str, Any]
    provenance: Mapping[str, Any]
    warnings: Sequence[str] = ()
    """What is wrong with the machine for measuring."""
    network: str = confinement.CUT
    """What network methods have: `none`, or `open` and why."""


class Tally(NamedTuple):
    """What a run did."""

    measured: int
    kept: int
    """Cells that were finished before it began."""
    shared: int
    """Cells that another run measured meanwhile."""
    statuses: Mapping[str, int]
    """How many of the measured cells ended how."""
    sealed: Place | None
    left_to_another: bool
    """Another run still measures in the folder; it seals when it is done."""
    missing: int
    """Cells whose rows somebody removed while the run went on."""


def describe_methods(requests: Sequence[tuple[str, str]]) -> list[MethodCard]:
    """Resolve methods and their overrides, each in a process of its own.

    Raises:
        UsageError: An unknown method or field, or a refused value.
    """
    cards: list[MethodCard] = []
    for name, overrides in requests:
        registry.source("method", name)
        verdict = call(errands.describe, name, overrides)
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
                for tokens in {context, shortest_example(context, plan.jitter)}:
                    task.sample(stream({}, "test", 0), 1, tokens)
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
    verdict = call(errands.look_around, device)
    if verdict.status != "ok":
        raise UsageError(f"this machine's torch cannot be used: {verdict.error}")
    now = datetime.datetime.now(datetime.UTC)
    run_id = f"{now:%Y%m%dT%H%M%S}-{digest(os.urandom(16), 6)}"
    return Setting(run_id, **verdict.value)


def harness_hash() -> str:
    """Hash of the code that trains and measures, the anchor that is timed beside included."""
    paths = [PACKAGE / f"{name}.py" for name in HARNESS_FILES]
    paths.append(registry.source("method", ANCHOR).path)
    return digest(b"".join(path.read_bytes().replace(b"\r\n", b"\n") for path in paths))


def _unloaded(cell: Cell) -> Verdict:
    error = scrub(cell.load_error or "")
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
        "asked_bytes": verdict.asked_bytes,
    }
    return [shared | failure | {"context": context} for context in cell.contexts]


class _Ladder:
    """Where methods ran out of memory: longer contexts of the same work are not tried.

    That is so for cost cells, which differ in their context alone. A cell that ran out of time is
    no such sign: the next may be cut short by a busy machine, or not at all.
    """

    def __init__(self) -> None:
        self._least: dict[str, int] = {}

    def note(self, cell: Cell, status: str, error: str | None) -> None:
        """Take note of how a cell ended."""
        if cell.kind == "quality" or status != "oom" or (error or "").startswith(NOT_TRIED):
            return
        rung, context = self._rung(cell), cell.contexts[0]
        self._least[rung] = min(context, self._least.get(rung, context))

    def verdict(self, cell: Cell) -> Verdict | None:
        """The verdict on a cell that is not worth trying."""
        least = None if cell.kind == "quality" else self._least.get(self._rung(cell))
        if least is None or cell.contexts[0] <= least:
            return None
        return Verdict("oom", None, None, too_long(least), None, None, 0.0)

    def _rung(self, cell: Cell) -> str:
        recipe = {**json.loads(cell.recipe), "contexts": None}
        return json.dumps({**cell.identity(), "recipe": recipe}, sort_keys=True)


class _Run:
    """A run under way: what waits, what another run works on, what came of the rest."""

    def __init__(
        self,
        cells: Sequence[Cell],
        visit: Visit,
        executor: Executor,
        setting: Setting,
        listener: Listener,
    ) -> None:
        self.visit, self.executor = visit, executor
        self.setting, self.listener = setting, listener
        self.waiting = deque(cells)
        self.elsewhere: list[Cell] = []
        self.under_way: set[str] = set()
        self.statuses: dict[str, int] = {}
        self.shared = 0
        self.ladder = _Ladder()
        self._looked = monotonic()
        self._idle_since: float | None = None
        self._told: set[str] = set()

    def go(self) -> None:
        """Work until nothing is left."""
        while True:
            self._start()
            if not (self.waiting or self.elsewhere or self.under_way):
                break
            for cell, topic, value in self.executor.collect(WAIT_S):
                if topic == "verdict":
                    self._finish(cell, value)
                else:
                    self.listener(Event(topic, cell, value))
            self._look_elsewhere()

    def _start(self) -> None:
        if self.elsewhere and not self.waiting:
            self._tell(self.elsewhere[0], "another run works on it")
        while self.waiting:
            cell = self.waiting[0]
            reason = self.executor.obstacle(cell)
            if reason is not None:
                self._tell(cell, reason)
                return
            self._begin(self.waiting.popleft())

    def _begin(self, cell: Cell) -> None:
        self._idle_since = None
        claim = self.visit.claim(cell)
        if claim == "elsewhere":
            self.elsewhere.append(cell)
        elif claim == "finished":
            self._share(cell)
        else:
            self.listener(Event("started", cell, None))
            verdict = _unloaded(cell) if cell.load_error else self.ladder.verdict(cell)
            self.under_way.add(cell.cell_id)
            if verdict:
                self._finish(cell, verdict)
            else:
                self.executor.submit(cell)

    def _tell(self, cell: Cell, reason: str) -> None:
        """Say what has kept the run idle for a while, each reason once."""
        if self.under_way:
            self._idle_since = None
            return
        self._idle_since = self._idle_since or monotonic()
        if monotonic() - self._idle_since > TELL_S and reason not in self._told:
            self._told.add(reason)
            self.listener(Event("waiting", cell, reason))

    def _finish(self, cell: Cell, verdict: Verdict) -> None:
        self.under_way.discard(cell.cell_id)
        rows = compose_rows(cell, verdict, self.setting)
        self.visit.keep(cell, rows, verdict.details)
        worst = str(next((r["status"] for r in rows if r["status"] != "ok"), "ok"))
        self.statuses[worst] = self.statuses.get(worst, 0) + 1
        self.ladder.note(cell, worst, verdict.error)
        self.listener(Event("finished", cell, rows))

    def _share(self, cell: Cell) -> None:
        outcome = self.visit.outcome(cell)
        if outcome:
            self.ladder.note(cell, outcome.status, outcome.error)
        self.shared += 1
        self.listener(Event("shared", cell, None))

    def _look_elsewhere(self) -> None:
        """See whether cells that another run worked on are finished, or were given up."""
        if monotonic() - self._looked < LOOK_S:
            return
        self._looked = monotonic()
        for cell in list(self.elsewhere):
            claim = self.visit.claim(cell)
            if claim == "elsewhere":
                continue
            self.elsewhere.remove(cell)
            if claim == "finished":
                self._share(cell)
            else:
                self.visit.drop(cell)
                self.waiting.append(cell)


def run_cells(
    cells: Sequence[Cell],
    visit: Visit,
    executor: Executor,
    setting: Setting,
    listener: Listener,
    *,
    finished: Mapping[str, Finished],
) -> Tally:
    """Run what is not finished, keep each cell as it ends, and seal when all are done.

    Args:
        cells: The plan.
        visit: The run's presence in the folder where results lie.
        executor: Does the work.
        setting: What the rows share.
        listener: Told of what happens to cells.
        finished: How those cells ended that are to be left alone, by cell id.

    Raises:
        OSError: The disk refused a finished cell; those before it are kept.
        KeyboardInterrupt: Passed on after what was under way is ended.
    """
    todo = [cell for cell in cells if cell.cell_id not in finished]
    run = _Run(todo, visit, executor, setting, listener)
    for cell in cells:
        if outcome := finished.get(cell.cell_id):
            run.ladder.note(cell, outcome.status, outcome.error)
    try:
        run.go()
    finally:
        executor.close()
    sealing = visit.seal()
    return Tally(
        measured=sum(run.statuses.values()),
        kept=len(cells) - len(todo),
        shared=run.shared,
        statuses=run.statuses,
        sealed=sealing.path,
        left_to_another=sealing.left_to_another,
        missing=sealing.missing,
    )
