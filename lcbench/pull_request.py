"""The pull request of a submission: title, body and the commands that open it."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from lcbench import registry, store
from lcbench.difference import (
    UNCHANGED,
    Difference,
    board_differences,
    escape,
    to_markdown,
    to_tables,
)
from lcbench.paths import local_results, published_results
from lcbench.places import write_atomically
from lcbench.submitting import Gathered, Request, Submission
from lcbench.tables import console


class PullRequest(NamedTuple):
    """What to open."""

    title: str
    body: str
    """Markdown."""
    body_file: Path
    """Where the body lies, for `gh`; git ignores it."""
    commands: Sequence[str]
    """To be typed in the checkout's root."""


def publish(request: Request, gathered: Gathered, submission: Submission) -> None:
    """Write a submission, and show what it changes and how to send it."""
    published = published_results()
    others = [path for path in published.rglob("*.parquet") if path != submission.path]
    before = store.read_rows(sorted(others)).frame
    is_new = submission.write()
    differences = board_differences(before, store.read_rows([published]).frame)
    opened = compose(request, gathered, submission, differences, published.parents[1])
    write_atomically(opened.body_file, opened.body.encode())
    out = console()
    for table in to_tables(differences):
        out.print(table)
    if not differences:
        out.print(UNCHANGED)
    out.print(f"{'Wrote' if is_new else 'There already:'} {submission.path}", soft_wrap=True)
    out.print("\nThe pull request's title:", style="bold")
    out.print(Text(f"  {opened.title}"), soft_wrap=True)
    out.print(f"Its body, also in {opened.body_file}:", style="bold", soft_wrap=True)
    out.print(Text("\n".join(f"  {line}" for line in opened.body.splitlines())), soft_wrap=True)
    out.print(f"To open it, in {published.parents[1]}:", style="bold", soft_wrap=True)
    out.print(Text("\n".join(f"  {line}" for line in opened.commands)), soft_wrap=True)


def compose(
    request: Request,
    gathered: Gathered,
    submission: Submission,
    differences: Sequence[Difference],
    root: Path,
) -> PullRequest:
    """The pull request that holds a method's file and its file of results.

    Args:
        request: What was asked.
        gathered: The rows.
        submission: The file of them.
        differences: What they change on the board.
        root: The checkout.
    """
    method, suite = request.method, gathered.suite
    source = f"methods/{registry.source('method', method).path.name}"
    results = submission.path.relative_to(root).as_posix()
    device = str(gathered.table["device_kind"][0])
    title = f"{method}: results of {suite} on {device}"
    body = _body(request, gathered, (source, results), differences)
    body_file = local_results() / suite / f"pull-request-{method}.md"
    told = body_file.relative_to(root) if body_file.is_relative_to(root) else body_file
    branch = f"{method}-{suite}-{submission.path.stem.rpartition('-')[2]}"
    commands = (
        ["git", "switch", "--create", branch],
        ["git", "add", "--", source, results],
        ["git", "commit", "--message", title],
        ["git", "push", "--set-upstream", "origin", branch],
        ["gh", "pr", "create", "--title", title, "--body-file", str(told)],
    )
    return PullRequest(title, body, body_file, [shlex.join(words) for words in commands])


def _body(
    request: Request,
    gathered: Gathered,
    files: tuple[str, str],
    differences: Sequence[Difference],
) -> str:
    rows: list[dict[str, Any]] = gathered.table.to_pylist()
    own = [row for row in rows if row["method"] == request.method]
    first = max(own, key=lambda row: row["started_at"])
    summary = registry.headline("method", request.method).summary
    statuses = Counter(row["status"] for row in own)
    told = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    parts = {"device": "", "os": "", "python": "Python ", "torch": "torch ", "cuda": "CUDA "}
    machine = ", ".join(f"{word}{first[name]}" for name, word in parts.items() if first[name])
    commit = (first["commit"] or "unknown")[:12]
    return "\n".join(
        [
            escape(summary),
            "",
            f"- Method: `{files[0]}`",
            f"- Results: `{files[1]}`, {len(own)} rows of {request.method} ({told})"
            f" and {len(rows) - len(own)} of the anchor",
            f"- Suite: {gathered.suite}, version {first['suite_version']};"
            f" lcbench {first['lcbench_version']} at {commit}",
            f"- Machine: {escape(machine)}",
            f"- Measured by `{gathered.command}`",
            f"- To measure some of it again: `lcbench verify {files[1]}`",
            "",
            "What it changes on the board:",
            "",
            to_markdown(differences),
            "",
        ]
    )
