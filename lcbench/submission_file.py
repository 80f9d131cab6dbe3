"""A submitted file of results, held to every rule.

Nothing a file holds is run, unpickled or trusted: sizes are bounded before anything is unpacked.
"""

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from lcbench import store
from lcbench.submission_costs import check_costs
from lcbench.submission_curves import check_curves
from lcbench.submission_pages import read_bounded, read_regular
from lcbench.submission_plan import Place, check_plan
from lcbench.submission_rows import IDENTITY, Rows, check_rows
from lcbench.submission_rules import Finding, Findings
from lcbench.submission_scores import check_scores
from lcbench.submission_tree import Tree
from lcbench.suite import ANCHOR

NAME = re.compile(
    r"(?P<suite>[a-z0-9]+(-[a-z0-9]+)*)/(?P<method>[a-z0-9]+(-[a-z0-9]+)*)/"
    r"(?P<day>20\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]))-(?P<digest>[0-9a-f]{12})\.parquet"
)
"""A file's name below `results/published`."""
LONGEST_NAME = 200
KEPT = ("README.md", ".gitkeep")
"""Files that may lie in the folder itself."""
_UNSOUND = ("nulls", "finite", "range", "enumeration")
"""Rules that keep a row from being reckoned with where it breaks them."""


def check_content(
    content: bytes, name: str, tree: Tree, *, now: datetime | None = None
) -> list[Finding]:
    """The faults of one file of results; bad data is never an error, always a finding.

    Args:
        content: Its bytes.
        name: Where it lies below `results/published`: `<suite>/<method>/<date>-<digest>.parquet`.
        tree: The source tree it was measured with.
        now: The time it is; by default the clock's.
    """
    findings = Findings(name)
    try:
        _check(content, name, tree, findings, now or datetime.now(UTC))
    except Exception as error:  # noqa: BLE001 -- a file that nobody foresaw must not pass, or stop
        findings.add("stopped", f"{type(error).__name__} came up while it was looked at")
    return findings.listed()


def _check(content: bytes, name: str, tree: Tree, findings: Findings, now: datetime) -> None:
    place = read_name(name, findings)
    table = read_bounded(content, findings, may_be_older=not tree.is_current)
    if table is None:
        return
    if place:
        said = store.content_digest(table)
        if said != place.digest:
            findings.add("digest", f"its rows have the digest {said}, its name {place.digest}")
        newest = max(table["started_at"].to_pylist())
        if f"{newest:%Y-%m-%d}" != place.day:
            message = f"its newest row was begun on {newest:%Y-%m-%d}, its name says {place.day}"
            findings.add("date", message)
    rows: Rows = table.to_pylist()
    check_rows(rows, findings, now)
    unsound = findings.rows_that_break(_UNSOUND)
    lines = list(store.canonical_rows(table))
    can_be_planned = place and not any(row[name] is None for row in rows for name in IDENTITY)
    cells = check_plan(rows, lines, place, tree, findings) if can_be_planned and place else {}
    sound = [row if number not in unsound else None for number, row in enumerate(rows)]
    check_scores(sound, findings)
    check_curves(sound, findings, may_be_older=not tree.is_current)
    check_costs(sound, cells, findings)


def name_by_rows(content: bytes, file_name: str) -> str:
    """Where a file would lie below `results/published`, by the suite and method of its rows.

    A file that cannot be read keeps its own name, which is none that a submission may have.
    """
    table = read_bounded(content, Findings(file_name), may_be_older=False)
    if table is None:
        return file_name
    suites: list[str] = table["suite"].to_pylist()
    methods: list[str] = table["method"].to_pylist()
    method = next((method for method in methods if method != ANCHOR), ANCHOR)
    return f"{suites[0]}/{method}/{file_name}"


def read_name(name: str, findings: Findings) -> Place | None:
    """What a file's name says, or None for one that says nothing; then that is noted."""
    found = NAME.fullmatch(name) if len(name) <= LONGEST_NAME else None
    if found is None:
        wanted = "<suite>/<method>/<date>-<digest>.parquet"
        findings.add("path", f"it is not named {wanted} below results/published")
        return None
    return Place(found["suite"], found["method"], found["day"], found["digest"])


def check_paths(
    paths: Iterable[Path], tree: Tree, published: Path, *, now: datetime | None = None
) -> list[Finding]:
    """The faults of files and folders that lie under a folder of published results.

    Args:
        paths: Files, and folders, of which every file is looked at.
        tree: The source tree they were measured with.
        published: The folder below which their names are; of a file elsewhere the last two folders
            are.
        now: The time it is; by default the clock's.
    """
    found: list[Finding] = []
    for path in _files(paths):
        name = _name_below(path, published)
        if name in KEPT:
            continue
        findings = Findings(name)
        content = read_regular(path, findings)
        found += findings.listed()
        if content is not None:
            found += check_content(content, name, tree, now=now)
    return found


def _files(paths: Iterable[Path]) -> list[Path]:
    """Every file at or below some paths, links among them, which are not followed."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            below = sorted(p for p in path.rglob("*") if p.is_symlink() or not p.is_dir())
            found |= dict.fromkeys(below)
        else:
            found[path] = None
    return list(found)


def _name_below(path: Path, folder: Path) -> str:
    whole, root = (Path(os.path.abspath(p)) for p in (path, folder))  # noqa: PTH100 -- follows no link
    # A file that lies elsewhere is on its way: its last two folders stand for suite and method.
    parts = whole.relative_to(root).parts if whole.is_relative_to(root) else whole.parts[-3:]
    return "/".join(parts)
