"""All that can be told of a pull request by machine: what `lcbench review` does.

The rules are held against what it adds, the methods it adds are checked, a few cells are measured
again, and the board is compared: in this order, and what breaks a rule is neither read nor run any
further. Every text of a stranger's is escaped.
"""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lcbench import registry, store, verifying
from lcbench.difference import board_differences, escape, to_markdown
from lcbench.isolation import Send, call
from lcbench.submission import PUBLISHED, look_at_changes, read_changes
from lcbench.submission_report import to_markdown as findings_to_markdown

CHECK_S = 120.0
"""Longest that the check of one method may take."""
MOST_CHARACTERS = 60_000
"""Of one step in the report."""


class Step(NamedTuple):
    """What came of one step."""

    title: str
    passed: bool
    text: str
    """Markdown."""


def review(ref: str, root: Path, cells: int, tell: Callable[[str], None]) -> list[Step]:
    """Look at what a checkout adds since a revision.

    Args:
        ref: The revision.
        root: The checkout this lcbench runs from.
        cells: How many cells of each file of results to measure again.
        tell: Called with a line about what is begun.

    Raises:
        UsageError: A revision that there is not.
    """
    paths = [change.path for change in read_changes(ref, root) if change.action != "D"]
    changes = look_at_changes(ref, root)
    names = {finding.path.removeprefix(f"{PUBLISHED}/") for finding in changes.findings}
    sound = [root / PUBLISHED / name for name in changes.results if name not in names]
    told = f"{changes.changed:,} paths changed, {len(changes.results):,} files of results."
    steps = [
        Step("Rules", not changes.findings, findings_to_markdown(changes.findings, told)),
        *_tell_of_code(paths),
    ]
    for method in changed_methods(paths):
        tell(f"checking {method}")
        steps.append(_check(method))
    if all(step.passed for step in steps):
        steps += [_verify(path, root, cells, tell) for path in sound]
    return [*steps, _compare_boards(root / PUBLISHED, changes.results, sound)]


def _tell_of_code(paths: Sequence[str]) -> list[Step]:
    own = ("methods/", f"{PUBLISHED}/")
    others = [path for path in paths if not path.startswith(own)]
    if not others:
        return []
    text = (
        f"{len(others):,} files are neither methods nor results, {escape(others[0])} among them:"
        " this report was made by the code as they change it."
    )
    return [Step("Other changes", True, text)]


def changed_methods(paths: Sequence[str]) -> list[str]:
    """The methods whose files are among some paths."""
    files = [PurePosixPath(path) for path in paths]
    names = {
        path.stem.replace("_", "-")
        for path in files
        if path.parent == PurePosixPath("methods") and path.suffix == ".py"
    }
    return sorted(names & set(registry.method_names()))


def _check(method: str) -> Step:
    verdict = call(check_here, method, timeout_s=CHECK_S)
    title = f"Check of {method}"
    if verdict.status != "ok":
        return Step(title, False, f"{verdict.status}: {escape(verdict.error or 'no reason given')}")
    found: list[tuple[str, str, str]] = verdict.value
    broken = [row for row in found if row[1] in ("fail", "undecided")]
    if not broken:
        return Step(title, True, "Every law that is claimed holds.")
    lines = [f"| {' | '.join(map(escape, row))} |" for row in broken]
    return Step(
        title, False, "\n".join(["| law | outcome | seen |", "| --- | --- | --- |", *lines])
    )


def check_here(method: str, send: Send) -> list[list[str]]:
    """Law, outcome and detail of each law; for a child process, since a method is a stranger's."""
    from lcbench.conformance import check_method

    findings = check_method(registry.load_method(method), cost=False, seconds=CHECK_S / 2)
    return [[finding.law, finding.outcome, finding.detail] for finding in findings]


def _verify(path: Path, root: Path, cells: int, tell: Callable[[str], None]) -> Step:
    title = f"Measured again: {path.relative_to(root / PUBLISHED).as_posix()}"
    try:
        report = verifying.verify(path, cells, tell=tell)
    except verifying.InvalidFileError as error:
        return Step(title, False, findings_to_markdown(error.findings, ""))
    rows = [f"| {' | '.join(map(escape, row))} |" for row in report.comparisons]
    head = ["| cell | what | published | here | allowed | verdict |", "| --- " * 6 + "|"]
    table = ["", *head, *rows] if rows else []
    return Step(title, report.agrees, "\n".join([report.summary, *report.notes, *table]))


def _compare_boards(published: Path, added: Sequence[str], sound: Sequence[Path]) -> Step:
    everything = set(published.rglob("*.parquet"))
    before: Any = sorted(everything - {published / name for name in added})
    frames = [store.read_rows(files).frame for files in (before, [*before, *sound])]
    return Step("Leaderboard", True, to_markdown(board_differences(*frames)))


def to_report(steps: Sequence[Step]) -> str:
    """The steps as one text in Markdown."""
    parts = [
        f"## {'✓' if step.passed else '✗'} {escape(step.title)}\n\n{step.text[:MOST_CHARACTERS]}\n"
        for step in steps
    ]
    return "\n".join(parts)
