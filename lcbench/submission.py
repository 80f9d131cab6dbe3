"""What a submission must satisfy, as pull request and as file, and every fault told.

A pull request adds one method's results, and its file; it changes nothing else.

Git is asked in lists of arguments and answers with names that end in a zero byte, so that no name
is read as an option, as a pattern or by a shell.
"""

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lcbench.config import UsageError
from lcbench.repository import ask_git
from lcbench.submission_file import NAME, check_content, check_paths, name_by_rows
from lcbench.submission_pages import MOST_BYTES
from lcbench.submission_rules import RULES, Finding, Findings
from lcbench.submission_tree import Tree, read_tree

__all__ = [
    "MOST_BYTES",
    "RULES",
    "Finding",
    "Tree",
    "check_changes",
    "check_content",
    "check_paths",
    "name_by_rows",
    "read_tree",
]

PUBLISHED = "results/published"
_PLAIN_FILE = "100644"


class Change(NamedTuple):
    """One path that differs from a revision."""

    path: str
    action: str
    """`A` for an addition, `M`, `D`, `T` as git has them."""
    mode: str
    """What it is now, as git writes it: 100644 is a file that nobody can run."""


class Changes(NamedTuple):
    """What was found of a pull request."""

    findings: list[Finding]
    results: list[str]
    """Files of results it adds, below `results/published`."""
    changed: int
    """Paths that differ, of whatever kind."""


def check_changes(ref: str, root: Path, *, now: datetime | None = None) -> list[Finding]:
    """The faults of what a checkout adds since a revision, committed or not.

    Args:
        ref: A revision; what counts is since the checkout left it.
        root: The checkout. Its methods are read and hashed; none of its code is run, unless it is
            the one this lcbench runs from.
        now: The time it is; by default the clock's.

    Raises:
        UsageError: A revision that there is not, or a folder that is no checkout.
    """
    return look_at_changes(ref, root, now=now).findings


def look_at_changes(ref: str, root: Path, *, now: datetime | None = None) -> Changes:
    """The faults of what a checkout adds, and what it adds; takes and raises as `check_changes`."""
    changes = list(read_changes(ref, root))
    added = [c.path.removeprefix(f"{PUBLISHED}/") for c in changes if _is_result(c.path)]
    if not added:
        return Changes([], [], len(changes))
    found = _check_own(changes)
    published = root / PUBLISHED
    tree = read_tree(root, published)
    for change in changes:
        is_file = change.action == "A" and change.mode == _PLAIN_FILE
        if _is_result(change.path) and is_file:
            found += check_paths([root / change.path], tree, published, now=now)
    return Changes(found, added, len(changes))


def read_changes(ref: str, root: Path) -> Iterator[Change]:
    """What differs from where a checkout left a revision, files git was not told of among it.

    Raises:
        UsageError: A revision that there is not, or a folder that is no checkout.
    """
    if ref.startswith("-") or not _git(
        root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"
    ):
        raise UsageError(f"no revision {ref!r} in {root}; fetch it, or name a branch or a commit")
    start = _git(root, "merge-base", ref, "HEAD").strip()
    if not start:
        raise UsageError(
            f"{ref!r} and HEAD share no history; fetch all of it: git fetch --unshallow"
        )
    raw = _git(root, "diff", "--raw", "-z", "--no-renames", "--no-ext-diff", start)
    fields = iter(raw.split("\0"))
    for about in fields:
        if about:
            _, mode, _, _, action = about.removeprefix(":").split(" ")
            yield Change(next(fields), action[:1], mode)
    for path in _git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0"):
        if path:
            yield Change(path, "A", _mode(root / path))


def _git(root: Path, *arguments: str) -> str:
    """What git answers; empty where it refuses."""
    try:
        return ask_git(root, *arguments) or ""
    except OSError as error:
        raise UsageError(f"git cannot be run: {error.strerror}; install it") from None


def _mode(path: Path) -> str:
    if path.is_symlink():
        return "120000"
    return "100755" if os.access(path, os.X_OK) else _PLAIN_FILE


def _is_result(path: str) -> bool:
    return path == PUBLISHED or path.startswith(f"{PUBLISHED}/")


def _check_own(changes: Iterable[Change]) -> list[Finding]:
    """Additions of plain files under the paths of one method."""
    found: list[Finding] = []
    methods: set[str] = set()
    for change in changes:
        findings = Findings(change.path)
        methods |= _check_change(change, findings)
        found += findings.listed()
    if len(methods) > 1:
        told = ", ".join(sorted(methods)[:5])
        message = f"it is of {len(methods)} methods: {told}; send a pull request for each"
        found.append(Finding(PUBLISHED, "own-paths", message))
    return found


def _check_change(change: Change, findings: Findings) -> set[str]:
    """Hold one path to the rules; gives the method it belongs to."""
    path = PurePosixPath(change.path)
    is_method = path.parent == PurePosixPath("methods") and path.suffix == ".py"
    if not _is_result(change.path) and not is_method:
        findings.add("own-paths", "a pull request with results changes nothing but its own paths")
        return set()
    if change.action != "A":
        what = {"D": "takes away", "M": "changes"}.get(change.action, "turns into something else")
        message = f"it {what} a file; results and methods are added, never edited"
        findings.add("own-paths", message)
    if change.action != "D" and change.mode != _PLAIN_FILE:
        kinds = {"120000": "a link", "160000": "a submodule", "100755": "a file that can be run"}
        what = kinds.get(change.mode, f"of mode {change.mode}")
        findings.add("regular-file", f"it is {what}")
    if is_method:
        return {path.stem.replace("_", "-")}
    found = NAME.fullmatch(change.path.removeprefix(f"{PUBLISHED}/"))
    if found is None:
        findings.add("path", "it is not named <suite>/<method>/<date>-<digest>.parquet")
    return {found["method"]} if found else set()
