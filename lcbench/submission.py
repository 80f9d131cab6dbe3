"""What a submitted file of results must satisfy: every rule, and every fault told.

Nothing a file holds is run, unpickled or trusted: sizes are bounded before anything is unpacked.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from lcbench.submission_rules import RULES, Finding, Findings
from lcbench.submission_tree import Tree, read_tree

__all__ = ["RULES", "Finding", "Tree", "check_changes", "check_content", "check_paths", "read_tree"]


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
    return Findings(name).listed()


def check_paths(
    paths: Iterable[Path], tree: Tree, published: Path, *, now: datetime | None = None
) -> list[Finding]:
    """The faults of files and folders that lie under a folder of published results.

    Args:
        paths: Files, and folders, of which every file is looked at.
        tree: The source tree they were measured with.
        published: The folder below which their names are.
        now: The time it is; by default the clock's.
    """
    return []


def check_changes(ref: str, root: Path, *, now: datetime | None = None) -> list[Finding]:
    """The faults of what a checkout adds since a revision, committed or not.

    Args:
        ref: A revision; what counts is since the checkout left it.
        root: The checkout. Its methods are read and hashed, none of its code is run, unless it is
            the one this lcbench runs from.
        now: The time it is; by default the clock's.

    Raises:
        UsageError: A revision that there is not, or a folder that is no checkout.
    """
    return []
