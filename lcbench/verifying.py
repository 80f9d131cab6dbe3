"""A few cells of a published file measured again and compared: what `lcbench verify` does.

What is measured again is planned from the tree, never from the file, and chosen by the file's
content: nobody who writes a file can name the cells that will be looked at. Nothing is written.
"""

import json
import math
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.text import Text

from lcbench import registry, runner, store
from lcbench.config import UsageError, digest
from lcbench.estimate import estimate_seconds
from lcbench.pool import LocalPool
from lcbench.runner import WAIT_S, Setting
from lcbench.store import Row
from lcbench.submission import Finding, check_content, read_tree
from lcbench.suite import ANCHOR, Cell, Selection, plan_cells
from lcbench.tables import console, new_table

CHEAP_S = 60.0
"""Estimated seconds up to which a cell is cheap; of dearer ones the cheaper half is."""
ERRORS = 2.0
"""Standard errors, of both measurements together, that a score may move on another machine. With
other processor instructions, seed and examples alike, one or so was seen."""
SHARE = 0.02
"""Of the way from floor to ceiling, what a score may move besides: another processor rounds
differently, and training carries that on."""
FACTOR = {"alike": 1.5, "other": 2.0}
"""Between two ratios to vanilla's time, on machines of one model and of two."""
BYTES = 0.1
"""Share by which peak memory may differ."""
ATTEMPTS = 3
"""Times that a cost is measured before it is said to differ."""
TO_THE_BIT = "to the bit"
DEPENDS = ("oom", "timeout")
"""Outcomes that tell of the machine as much as of the method."""

Verdict = Literal["agrees", "differs", "not compared"]


class Comparison(NamedTuple):
    """One number, as published and as measured here."""

    cell: str
    what: str
    published: str
    here: str
    allowed: str
    verdict: Verdict


class Report(NamedTuple):
    """What came of verifying a file."""

    comparisons: list[Comparison]
    notes: list[str]
    """What was not compared, and why."""

    @property
    def summary(self) -> str:
        """What came of it in one sentence."""
        counts = Counter(comparison.verdict for comparison in self.comparisons)
        if not counts:
            return "Nothing was compared."
        left = f"; not compared: {counts['not compared']}" if counts["not compared"] else ""
        return f"Numbers that agree: {counts['agrees']}; that differ: {counts['differs']}{left}."

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return all(comparison.verdict != "differs" for comparison in self.comparisons)


class InvalidFileError(Exception):
    """A file that breaks a rule, so that there is nothing to verify.

    Args:
        findings: What is wrong.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(f"{len(findings)} rules are broken")
        self.findings = findings


def verify(path: Path, cells: int, *, salt: str = "", tell: Callable[[str], None]) -> Report:
    """Measure some cells of a file of results again.

    Args:
        path: `.../<suite>/<method>/<date>-<digest>.parquet`.
        cells: How many.
        salt: Draws other cells.
        tell: Called with a line about each cell before it is measured.

    Raises:
        InvalidFileError: A file that `lcbench validate` refuses.
        UsageError: A method or suite that is not there.
    """
    rows = _read(path)
    known: dict[str, list[Row]] = {}
    for row in rows:
        known.setdefault(str(row["cell_id"]), []).append(row)
    planned = {cell.cell_id: cell for cell in _plan(rows) if cell.cell_id in known}
    report = Report([], [])
    if len(planned) < len(known):
        report.notes.append(
            f"{len(known) - len(planned)} of {len(known)} cells were measured with other code, or"
            " on another corpus, than this tree's: they cannot be measured again here."
            + _where((row for row in rows if row["cell_id"] not in planned), path)
        )
    kind = str(rows[0]["device_kind"])
    try:
        setting = runner.read_setting(kind)
    except UsageError as error:
        report.notes.append(f"Nothing was measured: the rows are of {kind}, and {error}.")
        return report
    chosen = draw(list(planned.values()), cells, f"{path.stem}{salt}")
    for cell in chosen:
        tell(f"{cell.label}, about {estimate_seconds(cell):.0f} s")
        report.comparisons.extend(_attempt(cell, known[cell.cell_id], setting))
    inexact = any(c.what == "score" and c.allowed != TO_THE_BIT for c in report.comparisons)
    if inexact and kind == "cpu" and _is_alike(rows[0], setting.environment):
        report.notes.append(
            "Scores differ in bits, though processors of one model with one torch give the same."
        )
    return report


def _where(rows: Iterable[Row], path: Path) -> str:
    """Where rows can be measured again: at the commits of those that no local change touched."""
    commits = {str(row["commit"])[:10] for row in rows if row["commit"] and not row["dirty"]}
    again = shlex.join([sys.executable, "-m", "lcbench", "verify", str(path.resolve())])
    return "".join(
        f"\nAt {commit}, where they were measured, they can:\n"
        f"  git worktree add ../lcbench-{commit} {commit} && cd ../lcbench-{commit} && {again}"
        for commit in sorted(commits)
    )


def _attempt(cell: Cell, published: Sequence[Row], setting: Setting) -> list[Comparison]:
    """Compare a cell; costs that do not agree, which something else may have disturbed, again."""
    found: list[Comparison] = []
    for _ in range(1 if cell.kind == "quality" else ATTEMPTS):
        found = compare(cell, published, measure(cell, setting))
        if all(comparison.verdict != "differs" for comparison in found):
            break
    return found


def _is_alike(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows are of machines of one model, with one torch."""
    return all(row[name] == other[name] for name in ("device", "cpu", "torch", "cuda"))


def show(report: Report) -> None:
    """Print a report."""
    out = console()
    table = new_table("Published, and measured here")
    for title in ("Cell", "What", "Published", "Here", "Allowed", "Verdict"):
        table.add_column(title, justify="right" if title in ("Published", "Here") else "left")
    styles = {"agrees": "green", "differs": "bold red", "not compared": "yellow"}
    for row in report.comparisons:
        table.add_row(*map(Text, row[:-1]), Text(row.verdict, styles[row.verdict]))
    if report.comparisons:
        out.print(table)
    for note in report.notes:
        out.print(Text(note, "yellow"), soft_wrap=True)
    out.print(report.summary)


def _read(path: Path) -> list[Row]:
    """The rows of a file that keeps the rules of its day."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    name = "/".join(path.absolute().parts[-3:])
    findings = check_content(content, name, read_tree(is_current=False))
    if findings:
        raise InvalidFileError(findings)
    return store.read_table([path]).table.to_pylist()


def _plan(rows: Sequence[Row]) -> Iterator[Cell]:
    """The cells that this tree plans for what the rows name."""
    names = ("suite", "method", "config", "dtype", "device_kind", "deterministic")
    seeds = sorted({int(str(row["seed"])) for row in rows if row["kind"] == "quality"})
    harness_hash = runner.harness_hash()
    for name, method, config, dtype, device, deterministic in dict.fromkeys(
        tuple(row[name] for name in names) for row in rows
    ):
        suite = registry.load_suite(str(name))
        yield from plan_cells(
            suite,
            str(name),
            runner.describe_methods([(str(method), overrides_of(str(config)))]),
            runner.describe_tasks(suite),
            select=Selection(seeds=seeds or None),
            dtype=str(dtype),
            device_kind=str(device),
            harness_hash=harness_hash,
            deterministic=bool(deterministic),
        )


def overrides_of(config: str) -> str:
    """A config in canonical JSON as one writes it on the command line."""
    fields: Mapping[str, object] = json.loads(config)
    return ",".join(f"{name}={_written(value)}" for name, value in fields.items())


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def draw(cells: Sequence[Cell], count: int, text: str) -> list[Cell]:
    """So many cheap cells, chosen by a text: what they scored and what they cost in turn."""
    ordered = sorted(cells, key=lambda cell: digest(text + cell.cell_id))
    kinds = [[c for c in ordered if (c.kind == "quality") is quality] for quality in (True, False)]
    strata = [_cheap(stratum) for stratum in kinds]
    turns = [stratum[turn] for turn in range(count) for stratum in strata if turn < len(stratum)]
    return turns[:count]


def _cheap(cells: Sequence[Cell]) -> list[Cell]:
    if not cells:
        return []
    seconds = {cell.cell_id: estimate_seconds(cell) for cell in cells}
    half = sorted(seconds.values())[(len(cells) - 1) // 2]
    return [cell for cell in cells if seconds[cell.cell_id] <= max(CHEAP_S, half)]


def measure(cell: Cell, setting: Setting) -> list[Row]:
    """A cell's rows, measured here and written nowhere."""
    pool = LocalPool(1)
    try:
        while pool.obstacle(cell):
            pool.collect(WAIT_S)
        pool.submit(cell)
        while True:
            for news in pool.collect(WAIT_S):
                if news.topic == "verdict":
                    return runner.compose_rows(cell, news.value, setting)
    finally:
        pool.close()


def compare(cell: Cell, published: Iterable[Row], here: Iterable[Row]) -> list[Comparison]:
    """What a cell's rows say of each number, context by context."""
    found: list[Comparison] = []
    ours = {row["context"]: row for row in here}
    for row in published:
        other = ours.get(row["context"]) or {"status": "missing"}
        place = f"{cell.label} at {row['context']:,}" if cell.kind == "quality" else cell.label
        statuses = str(row["status"]), str(other["status"])
        if statuses != ("ok", "ok"):
            told: Verdict = "agrees" if statuses[0] == statuses[1] else "differs"
            if told == "differs" and set(statuses) & set(DEPENDS):
                told = "not compared"
            found.append(Comparison(place, "outcome", *statuses, "the same", told))
            continue
        numbers = _scores if cell.kind == "quality" else _costs
        found += [Comparison(place, *number) for number in numbers(row, other)]
    return found


_Number = tuple[str, str, str, str, Verdict]


def _scores(row: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[_Number]:
    gap = abs(row["score"] - other["score"])
    errors = math.hypot(row["score_se"] or 0.0, other["score_se"] or 0.0)
    allowed = ERRORS * errors + SHARE * abs(row["ceiling"] - row["floor"])
    told = f"± {allowed:.4f}" if gap else TO_THE_BIT
    theirs, ours = f"{row['score']:.4f}", f"{other['score']:.4f}"
    yield "score", theirs, ours, told, _verdict(gap <= allowed)
    yield from _exact(row, other, "num_params", "num_examples")


def _costs(row: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[_Number]:
    factor = FACTOR["alike" if _is_alike(row, other) else "other"]
    theirs, ours = row["vs_vanilla"], other["vs_vanilla"]
    if row["method"] != ANCHOR and theirs and ours:
        near = max(theirs, ours) <= factor * min(theirs, ours)
        yield (
            "vanilla's time",
            f"{theirs:.2f}×",
            f"{ours:.2f}×",
            f"factor {factor:g}",
            _verdict(near),
        )
    theirs, ours = row["peak_bytes"], other["peak_bytes"]
    if theirs and ours and row["memory_source"] == other["memory_source"]:
        near = math.isclose(theirs, ours, rel_tol=BYTES)
        yield "peak bytes", f"{theirs:,}", f"{ours:,}", f"± {100 * BYTES:.0f} %", _verdict(near)
    yield from _exact(row, other, "state_bytes", "num_params")


def _exact(row: Mapping[str, Any], other: Mapping[str, Any], *names: str) -> Iterator[_Number]:
    """What must be the same, told where it is not."""
    for name in names:
        if row[name] != other.get(name):
            yield name, f"{row[name]}", f"{other.get(name)}", "the same", "differs"


def _verdict(agrees: bool) -> Verdict:
    return "agrees" if agrees else "differs"
