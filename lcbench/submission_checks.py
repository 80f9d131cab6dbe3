"""What `lcbench validate` looks at, and what it says of that."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lcbench import paths
from lcbench.config import UsageError
from lcbench.submission import PUBLISHED, check_paths, look_at_changes, read_tree
from lcbench.submission_rules import RULES, Finding


class Checked(NamedTuple):
    """What came of it."""

    findings: list[Finding]
    checked: str
    """What was looked at, as a sentence."""


def look(named: Sequence[Path], changed_since: str | None, root: Path | None) -> Checked:
    """Hold files to the rules: those named, those added since a revision, or all published.

    Args:
        named: Files and folders.
        changed_since: A revision.
        root: The checkout that is looked at, in place of the one this lcbench runs from.

    Raises:
        UsageError: A file or revision that there is not, or nothing to look at.
    """
    if changed_since is not None:
        return _look_at_changes(changed_since, root or paths.checkout() or Path.cwd())
    published = root / PUBLISHED if root else paths.published_results()
    missing = [path for path in named if not path.is_symlink() and not path.exists()]
    if missing:
        raise UsageError(f"{missing[0]} does not exist; name files or folders of results")
    tree = read_tree(root, published, is_current=bool(named))
    where = list(named) or [published] * published.is_dir()
    found = check_paths(where, tree, published)
    count = sum(len(_parquet(path)) for path in where)
    held = "the code of this tree" if named else "what they say of themselves"
    return Checked(found, f"Looked at {_files(count)}, held to {len(RULES)} rules and {held}.")


def _look_at_changes(ref: str, root: Path) -> Checked:
    changes = look_at_changes(ref, root)
    if not changes.results:
        return Checked([], f"{changes.changed:,} paths changed since {ref}, no results among them.")
    checked = (
        f"{changes.changed:,} path{'s' if changes.changed > 1 else ''} changed since {ref}:"
        f" looked at {_files(len(changes.results))} and held to {len(RULES)} rules."
    )
    return Checked(changes.findings, checked)


def _parquet(path: Path) -> list[Path]:
    return list(path.rglob("*.parquet")) if path.is_dir() else [path]


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'} of results"
