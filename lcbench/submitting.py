"""A method's local rows into a file to publish: what `lcbench submit` does.

The newest rows of each planned cell count, whatever they say: a failure stays a failure, and a
cell measured again is not chosen for its result.
"""

import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from lcbench import registry, runner, store
from lcbench.config import UsageError
from lcbench.paths import checkout, local_results, published_results
from lcbench.places import Place, write_atomically
from lcbench.repository import ask_git
from lcbench.scaffold import MARK, marked_lines
from lcbench.submission import Finding, check_content, read_tree
from lcbench.suite import ANCHOR, Cell, MethodCard, Selection, Suite, TaskCard, plan_cells

MOST_TOLD = 5
_HANDLE = re.compile(r"(?=.{1,39}\Z)[A-Za-z0-9]+(-[A-Za-z0-9]+)*")


class Request(NamedTuple):
    """What is asked to be submitted."""

    method: str
    overrides: str = ""
    suite: str | None = None
    """None for the one suite the method was measured on."""
    device: str | None = None
    """None for that of the newest rows."""
    results: Place | None = None
    """None for `results/local`."""
    submitter: str | None = None


class Gathered(NamedTuple):
    """Rows to submit: every planned cell of a method and of the anchor."""

    table: pa.Table
    suite: str
    command: str
    """What measures them again."""


class Submission(NamedTuple):
    """A file to publish."""

    path: Path
    content: bytes
    findings: list[Finding]
    """What the validator says; nothing may be written if it says anything."""

    def write(self) -> bool:
        """Put it in its place; whether it was not there before."""
        if self.path.exists() and self.path.read_bytes() == self.content:
            return False
        write_atomically(self.path, self.content)
        return True


class _Setup(NamedTuple):
    """How the newest rows were measured."""

    device_kind: str
    dtype: str
    deterministic: bool


def read_handle(text: str | None) -> str | None:
    """A GitHub handle, of what was typed.

    Raises:
        UsageError: It cannot be one.
    """
    if text is None or _HANDLE.fullmatch(text.removeprefix("@")):
        return text and text.removeprefix("@")
    raise UsageError(
        f"--as takes a GitHub handle (letters, digits and single hyphens, 39 at most), got {text!r}"
    )


def gather(request: Request) -> Gathered:
    """The rows of every planned cell of a method and of the anchor.

    Raises:
        UsageError: A method that is not this checkout's, or was left unfinished; no rows, or none
            of what is in the tree now. Says what to run.
    """
    refuse_unfinished(request.method)
    place = request.results or local_results()
    read = store.read_table([place])
    frame: pd.DataFrame = read.table.to_pandas().assign(line=range(len(read.table)))
    own = frame[frame["method"] == request.method]
    suite = _choose_suite(request, own, place)
    rows = frame[frame["suite"] == suite]
    planner = _Planner(request, suite, _setup(request, own[own["suite"] == suite]))
    cells, chosen = planner.choose(rows)
    lines = sorted(line for cell in cells for line in chosen[cell.cell_id])
    seeds = {cell.seed for cell in cells if cell.kind == "quality"}
    more = ["--seeds", str(len(seeds))] if len(seeds) > len(planner.suite.seeds) else []
    return Gathered(read.table.take(pa.array(lines)), suite, planner.command(*more))


def refuse_unfinished(method: str) -> None:
    """Refuse a method whose file is elsewhere or has marked places, and edits of what it ran on.

    Raises:
        UsageError: It is so.
    """
    root, path = checkout(), registry.source("method", method).path
    if root is None:
        raise UsageError(
            "lcbench is installed here without its repository; clone it, put the method's file into"
            " its methods/, and run lcbench submit there"
        )
    if path.parent != root / "methods":
        raise UsageError(
            f"{path} is not in this repository: a pull request holds the method's file, so copy it"
            f" to {root / 'methods'} and measure it there"
        )
    if marked := marked_lines(path):
        raise UsageError(
            f"methods/{path.name} still has places marked {MARK} (line"
            f" {', '.join(map(str, marked))}); edit them, take the marks away, and run it again"
        )
    edited = _edited(root, path)
    if edited:
        raise UsageError(
            f"{', '.join(edited[:MOST_TOLD])} differ from what is committed, and a submission is"
            " measured with the repository's own code: git stash them and run again"
        )


def _edited(root: Path, own: Path) -> list[str]:
    """Files with uncommitted changes that can change a number, the method's own not among them."""
    if shutil.which("git") is None or not (root / ".git").exists():
        return []
    options = ("--porcelain", "-z", "--no-renames", "--untracked-files=no")
    answer = ask_git(root, "status", *options, "--", "lcbench", "methods", "suites") or ""
    changed = [field[3:] for field in answer.split("\0") if field]
    return [path for path in changed if path != own.relative_to(root).as_posix()]


def _choose_suite(request: Request, own: pd.DataFrame, place: Place) -> str:
    known = sorted(set(own["suite"]))
    if request.suite is not None:
        registry.source("suite", request.suite)
        if request.suite in known:
            return request.suite
        known = []
    if not known:
        of_suite = f" of suite {request.suite!r}" if request.suite else ""
        raise UsageError(
            f"no rows of method {request.method!r}{of_suite} in {place}; measure it:"
            f" {_run_command(request, request.suite, None)}"
        )
    if len(known) > 1:
        raise UsageError(
            f"{request.method!r} was measured on {' and '.join(known)}; say which with --suite"
        )
    return known[0]


def _setup(request: Request, own: pd.DataFrame) -> _Setup:
    if request.device is not None:
        kinds = sorted(set(own["device_kind"]))
        own = own[own["device_kind"] == request.device]
        if own.empty:
            raise UsageError(
                f"no rows of {request.method!r} on {request.device}, only on {', '.join(kinds)}"
            )
    newest: dict[Any, Any] = own.sort_values("started_at").to_dict("records")[-1]
    return _Setup(newest["device_kind"], newest["dtype"], bool(newest["deterministic"]))


def _run_command(request: Request, suite: str | None, setup: _Setup | None) -> str:
    """The command that measures what is asked, and what is missing alone."""
    own = f"{request.method}:{request.overrides}" if request.overrides else request.method
    words = ["lcbench", "run", "--method", ",".join(dict.fromkeys([ANCHOR, own]))]
    words += ["--suite", suite] if suite else []
    if setup:
        words += ["--device", setup.device_kind]
        is_usual = setup.dtype == registry.load_suite(suite).dtype if suite else False
        words += [] if is_usual else ["--dtype", setup.dtype]
        words += ["--deterministic"] if setup.deterministic else []
    words += ["--results", str(request.results)] if request.results else []
    return shlex.join(words)


class _Planner:
    """What a suite plans for a method and the anchor, held against the rows there are.

    Raises:
        UsageError: A method that does not load, or overrides it refuses.
    """

    def __init__(self, request: Request, suite: str, setup: _Setup) -> None:
        self.request, self.name, self.setup = request, suite, setup
        self.suite: Suite = registry.load_suite(suite)
        self.tasks: list[TaskCard] = runner.describe_tasks(self.suite)
        wanted = [(request.method, request.overrides), (ANCHOR, "")]
        self.methods: list[MethodCard] = runner.describe_methods(list(dict.fromkeys(wanted)))
        self.harness_hash = runner.harness_hash()
        if error := self.methods[0].error:
            raise UsageError(f"{request.method!r} cannot be loaded, so it cannot be told: {error}")

    def command(self, *extra: str) -> str:
        """What to run."""
        return " ".join([_run_command(self.request, self.name, self.setup), *extra])

    def plan(self, seeds: Sequence[int] | None) -> list[Cell]:
        """All cells of the suite, at its own seeds or others."""
        return plan_cells(
            self.suite,
            self.name,
            self.methods,
            self.tasks,
            select=Selection(seeds=seeds),
            dtype=self.setup.dtype,
            device_kind=self.setup.device_kind,
            harness_hash=self.harness_hash,
            deterministic=self.setup.deterministic,
        )

    def choose(self, rows: pd.DataFrame) -> tuple[list[Cell], dict[str, list[int]]]:
        """The cells to submit, and the lines of each one's newest rows.

        More seeds than the suite's are taken where every cell has them, from 0 on.

        Raises:
            UsageError: Cells without rows.
        """
        pinned = self.plan(None)
        found = self._newest(rows, pinned)
        missing = [cell for cell in pinned if cell.cell_id not in found]
        if missing:
            raise UsageError(self._tell(missing, rows))
        cells = pinned
        for count in range(max(self.suite.seeds) + 2, len(set(rows["seed"])) + 1):
            more = self.plan(range(count))
            found_more = self._newest(rows, more)
            if any(cell.cell_id not in found_more for cell in more):
                break
            cells, found = more, found_more
        return cells, found

    def _newest(self, rows: pd.DataFrame, cells: Sequence[Cell]) -> dict[str, list[int]]:
        """The lines of the newest rows of each cell that has rows at all its contexts."""
        planned = {cell.cell_id: cell for cell in cells}
        known = rows[rows["cell_id"].isin(list(planned))]
        known = store.latest(self._on_one_machine(known))
        lines: dict[str, list[int]] = {}
        for cell_id, part in known.groupby("cell_id"):
            if set(part["context"]) == set(planned[str(cell_id)].contexts):
                lines[str(cell_id)] = [int(line) for line in part["line"]]
        return lines

    def _on_one_machine(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows, of costs those alone of the machine that measured most of them, then last."""
        costs = rows[rows["kind"] != "quality"]
        if costs.empty:
            return rows
        machines = costs.groupby("env_id").agg(
            cells=("cell_id", "nunique"), last=("started_at", "max")
        )
        best = machines.sort_values(["cells", "last"]).index[-1]
        return rows[(rows["kind"] == "quality") | (rows["env_id"] == best)]

    def _tell(self, missing: Sequence[Cell], rows: pd.DataFrame) -> str:
        labels = "; ".join(cell.label for cell in missing[:MOST_TOLD])
        more = f" and {len(missing) - MOST_TOLD} more" if len(missing) > MOST_TOLD else ""
        told = f"not measured: {labels}{more}"
        own = rows[rows["method"] == self.request.method]
        if self.methods[0].source_hash not in set(own["method_hash"]):
            told = f"{self.request.method!r} was edited since it was measured"
        elif self.harness_hash not in set(own["harness_hash"]):
            told = f"lcbench's own code changed since {self.request.method!r} was measured"
        elif self.suite.version not in set(own["suite_version"]):
            told = f"suite {self.name!r} is version {self.suite.version} now"
        cells = f"the {len(missing)} cells missing" if len(missing) > 1 else "the cell missing"
        return f"{told}. Run this, which measures {cells}: {self.command()}"


def prepare(gathered: Gathered, request: Request) -> Submission:
    """The file to publish, held to every rule; its name is that of what it says.

    Raises:
        UsageError: The same rows are published under another name.
    """
    place = gathered.table.schema.get_field_index("submitter")
    submitter = pa.array([request.submitter] * len(gathered.table), pa.string())
    table = gathered.table.set_column(place, gathered.table.schema.field(place), submitter)
    started: list[Any] = table["started_at"].to_pylist()
    published = published_results()
    own = Path(gathered.suite) / request.method
    with tempfile.TemporaryDirectory() as scratch:
        sealed = store.seal(table, Path(scratch), max(started).date())
        content, name = Path(str(sealed)).read_bytes(), own / sealed.name
    _refuse_repeated(table, published / own, sealed.name)
    findings = check_content(content, name.as_posix(), read_tree(None, published))
    return Submission(published / name, content, findings)


def _refuse_repeated(table: pa.Table, folder: Path, name: str) -> None:
    """Refuse rows of the folder's method that lie in another file of it."""
    mine = _keys(table, folder.name)
    for path in sorted(set(folder.glob("*.parquet")) - {folder / name}):
        if not mine.isdisjoint(_keys(store.read_table([path]).table, folder.name)):
            raise UsageError(
                f"some of these rows are published already, in {path}; if that file is in no pull"
                " request yet, delete it and run this again, else measure anew with lcbench run"
                " --fresh"
            )


def _keys(table: pa.Table, method: str) -> set[tuple[object, ...]]:
    names = (*store.ROW_KEY, "method")
    keys = zip(*(table[name].to_pylist() for name in names), strict=True)
    return {key for key in keys if key[-1] == method}
