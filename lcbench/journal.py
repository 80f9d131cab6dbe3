"""A suite's results on disk: a journal of finished cells, claims on those under way, sealed files.

    cells/<stem>.parquet    the rows of a finished cell, until they are sealed
    claims/<stem>           locked by the run that works on the cell
    runs/<run_id>.json      a run's plan, locked while the run goes on
    logs/<stem>.log         what a failed cell said, for this machine only
    <day>-<digest>.parquet  sealed rows

Every file appears whole, by a rename. Runs share a folder: each holds `.lock` shared, so that who
takes it alone knows that nobody measures. Results at a URL keep all but the sealed files here, in
`results/local/staging`.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from lcbench import store
from lcbench.config import UsageError, digest
from lcbench.locks import FileLock, is_locked
from lcbench.paths import local_results
from lcbench.places import Place, RemotePath, write_atomically
from lcbench.store import Row
from lcbench.suite import Cell

Claim = Literal["taken", "elsewhere", "finished"]
"""What came of asking for a cell: it is this run's, another run works on it, or one did."""


class Finished(NamedTuple):
    """How a finished cell ended: `ok` when all its newest rows are, else the first that is not."""

    status: str
    error: str | None


class PlannedCell(NamedTuple):
    """A cell in the plan of a run."""

    stem: str
    label: str


class RunPlan(NamedTuple):
    """What a run set out to do."""

    run_id: str
    suite: str
    command: str
    started_at: str
    """ISO 8601, UTC."""
    cells: tuple[PlannedCell, ...]

    def to_json(self) -> str:
        """As text, for `read_plan`."""
        return json.dumps(self._asdict())


class Sealing(NamedTuple):
    """What came of sealing."""

    path: Place | None
    """The new sealed file, if anything was left to seal."""
    left_to_another: bool
    """Another run still measures here; it seals when it is done."""
    missing: int
    """Cells of the plan that have no rows: somebody removed them while the run went on."""


def stem_of(kind: str, cell_id: str, env_id: str | None) -> str:
    """The name of a cell's files: what a cell cost is known on the machine that measured it."""
    return cell_id if kind == "quality" else f"{cell_id}-{env_id or 'unknown'}"


class Folder:
    """The results of one suite.

    Args:
        root: The folder of all suites' results.
        suite: The suite's name.
        env_id: The machine that measures.
    """

    def __init__(self, root: Place, suite: str, env_id: str) -> None:
        self.sealed = root / suite
        self.path = local_part(root) / suite
        self.env_id = env_id
        self.cells = self.path / "cells"
        self.claims = self.path / "claims"
        self.runs = self.path / "runs"
        self.logs = self.path / "logs"

    def prepare(self) -> None:
        """Make sure it can be written.

        Raises:
            UsageError: It cannot.
        """
        try:
            for folder in (self.cells, self.claims, self.runs):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.cells / f".probe-{os.getpid()}.tmp"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UsageError(
                f"results folder {self.path} cannot be written ({reason});"
                " name another with --results"
            ) from None

    def stem(self, cell: Cell) -> str:
        """The name of a cell's files."""
        return stem_of(cell.kind, cell.cell_id, self.env_id)

    def cell_file(self, cell: Cell) -> Path:
        """Where a finished cell's rows are until they are sealed."""
        return self.cells / f"{self.stem(cell)}.parquet"

    def places(self) -> list[Place]:
        """All places where its rows lie."""
        return [self.path] if self.sealed == self.path else [self.sealed, self.path]

    def finished(self) -> dict[str, Finished]:
        """The cells that have rows, by stem."""
        return read_finished(self.places())

    def keep(self, cell: Cell, rows: Sequence[Row], details: str | None) -> None:
        """Write a finished cell; what it said when it failed goes to a log beside it.

        Raises:
            OSError: The disk refuses.
        """
        store.write_rows(self.cell_file(cell), rows)
        if details:
            write_atomically(self.logs / f"{self.stem(cell)}.log", details.encode())

    def seal(self, stems: Iterable[str]) -> Place | None:
        """Move the journal's files of these cells into one sealed file; None if there are none.

        Rows that a sealed file holds already (a run was killed between sealing and clearing the
        journal) are cleared and not sealed again. For who is alone in the folder.
        """
        files = [path for stem in stems if (path := self.cells / f"{stem}.parquet").exists()]
        table, problems = store.read_table(files)
        known = store.read_table(self._sealed_files(), store.ROW_KEY).table.to_pylist()
        sealed_keys = {tuple(row[name] for name in store.ROW_KEY) for row in known}
        keys = zip(*(table[name].to_pylist() for name in store.ROW_KEY), strict=True)
        table = table.filter([key not in sealed_keys for key in keys]) if len(table) else table
        today = datetime.datetime.now(datetime.UTC).date()
        sealed = store.seal(table, self.sealed, today) if len(table) else None
        for path in set(files) - {path for path, _ in problems}:
            path.unlink(missing_ok=True)
        return sealed

    def _sealed_files(self) -> list[Place]:
        if isinstance(self.sealed, RemotePath):
            return [self.sealed]
        return [path for path in sorted(self.sealed.glob("*.parquet")) if path.name[0] != "."]

    def sweep(self) -> None:
        """Take away what killed runs left half-written; for who is alone in the folder."""
        for folder in (self.path, self.cells, self.runs, self.logs):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)
        for path in self.claims.glob("*"):
            path.unlink(missing_ok=True)


class Visit:
    """One run's presence in a folder that other runs may be in too. A context manager.

    Args:
        folder: The folder.
        cells: The run's plan.
        run_id: The run's name.
        command: What to type to go on with it.
    """

    def __init__(self, folder: Folder, cells: Sequence[Cell], run_id: str, command: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        planned = tuple(PlannedCell(folder.stem(cell), cell.label) for cell in cells)
        suite = cells[0].suite if cells else ""
        self.folder = folder
        self.plan = RunPlan(run_id, suite, command, now, planned)
        self.others: list[RunPlan] = []
        """Plans of the runs that were here when this one came."""
        self._gate = FileLock(folder.path / ".lock")
        self._note = FileLock(folder.runs / f".{run_id}.json.tmp")
        self._claims: dict[str, FileLock] = {}
        self._before: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        """Come in; what killed runs left is swept up if nobody else is here.

        Raises:
            UsageError: The folder cannot be written.
            OSError: The disk is full.
        """
        self.folder.prepare()
        try:
            if self._gate.acquire():
                self.folder.sweep()
                self._gate.release()
            self._gate.acquire(shared=True, wait=True)
            self._before = {path.name: _stamp(path) for path in self.folder.cells.glob("*.parquet")}
            self._announce()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for claim in self._claims.values():
            claim.release(remove=True)
        self._claims.clear()
        self._note.release()
        self._gate.release()

    def _announce(self) -> None:
        path = self.folder.runs / f"{self.plan.run_id}.json"
        mine = {cell.stem for cell in self.plan.cells}
        for other, plan in read_plans(self.folder.runs).items():
            if is_locked(other):
                self.others.append(plan)
            elif plan.command == self.plan.command or mine >= {cell.stem for cell in plan.cells}:
                other.unlink(missing_ok=True)  # This run goes on with what that one began.
        # Locked before it has its name, so that nobody takes it for an interrupted run's.
        self._note.acquire()
        self._note.write(self.plan.to_json())
        self._note.rename(path)

    def claim(self, cell: Cell) -> Claim:
        """Ask for a cell, so that no two runs measure it.

        Raises:
            OSError: The disk is full.
        """
        stem = self.folder.stem(cell)
        lock = FileLock(self.folder.claims / stem)
        try:
            taken = lock.acquire()
        except FileNotFoundError:  # the folder was removed
            self.folder.claims.mkdir(parents=True, exist_ok=True)
            taken = lock.acquire()
        if not taken:
            return "elsewhere"
        self._claims[stem] = lock
        if self._is_new(cell):
            self.drop(cell)
            return "finished"
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lock.write(json.dumps({"label": cell.label, "since": since}))
        return "taken"

    def drop(self, cell: Cell) -> None:
        """Give a claim back: the cell is kept, or it will not be worked on."""
        lock = self._claims.pop(self.folder.stem(cell), None)
        if lock:
            lock.release(remove=True)

    def keep(self, cell: Cell, rows: Sequence[Row], details: str | None) -> None:
        """Write a finished cell and give its claim back.

        Raises:
            OSError: The disk refuses; the claim stays until the run ends.
        """
        self.folder.keep(cell, rows, details)
        self.drop(cell)

    def outcome(self, cell: Cell) -> Finished | None:
        """How a cell ended that another run measured meanwhile."""
        return read_finished([self.folder.cell_file(cell)]).get(self.folder.stem(cell))

    def _is_new(self, cell: Cell) -> bool:
        """Whether the journal got this cell since the run began."""
        path = self.folder.cell_file(cell)
        try:
            return _stamp(path) != self._before.get(path.name)
        except OSError:
            return False

    def seal(self) -> Sealing:
        """Leave, and seal every plan that is complete if no other run is here.

        Raises:
            OSError: The disk refuses; what was to be sealed stays in the journal.
        """
        self._gate.release()
        self.folder.prepare()
        if not self._gate.acquire():
            return Sealing(None, left_to_another=True, missing=0)
        try:
            plans = read_plans(self.folder.runs)
            finished = self.folder.finished().keys()
            complete = {p: plan for p, plan in plans.items() if finished >= _stems(plan)}
            stems = {stem: None for plan in complete.values() for stem in sorted(_stems(plan))}
            missing = len(_stems(self.plan) - finished)
            sealed = self.folder.seal(
                stems if missing else stems | dict.fromkeys(_stems(self.plan))
            )
            for path in complete:
                path.unlink(missing_ok=True)
            self.folder.sweep()
        finally:
            self._gate.release()
        return Sealing(sealed, left_to_another=False, missing=missing)


def local_part(root: Place) -> Path:
    """Where on this machine a run's journal lies: in its results, or in their stead for a URL."""
    if isinstance(root, RemotePath):
        return local_results() / "staging" / digest(str(root), 12)
    return root


def read_finished(places: Iterable[Place]) -> dict[str, Finished]:
    """The cells that have rows in some places, by stem."""
    names = [*store.ROW_KEY, "status", "error", "started_at", "env_id"]
    frame = store.read_rows(places, names).frame
    records: list[dict[Any, Any]] = frame[["kind", "cell_id", "env_id"]].to_dict("records")
    stems = [
        stem_of(r["kind"], r["cell_id"], r["env_id"] if isinstance(r["env_id"], str) else None)
        for r in records
    ]
    frame = store.latest(frame.assign(stem=stems), ("stem", "context"))
    failed_first = frame.assign(is_ok=frame["status"] == "ok").sort_values("is_ok", kind="stable")
    first = failed_first.drop_duplicates("stem")
    errors = [error if isinstance(error, str) else None for error in first["error"]]
    outcomes = map(Finished, first["status"], errors)
    return dict(zip(first["stem"], outcomes, strict=True))


def read_plans(folder: Path) -> Mapping[Path, RunPlan]:
    """The plans of the runs in a folder, oldest first; those that cannot be read are left out."""
    plans: dict[Path, RunPlan] = {}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            fields = json.loads(path.read_text(encoding="utf-8"))
            fields["cells"] = tuple(PlannedCell(*cell) for cell in fields["cells"])
            plans[path] = RunPlan(**fields)
    return plans


def _stems(plan: RunPlan) -> set[str]:
    return {cell.stem for cell in plan.cells}


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns
