"""What was found of a submission, as text, Markdown or JSON."""

import json
from collections.abc import Sequence

from lcbench.submission_rules import Finding

_MARKDOWN = str.maketrans(
    {mark: f"&#{ord(mark)};" for mark in "&<>|`*_[]\\~@#\n\r"}
)  # a cell of a table that a stranger's text may not leave


def to_text(findings: Sequence[Finding], checked: str) -> str:
    """A paragraph a file, a line a finding.

    Args:
        findings: What was found.
        checked: What was looked at, as a sentence.
    """
    if not findings:
        return f"{checked} No fault found."
    lines: list[str] = []
    for path in dict.fromkeys(finding.path for finding in findings):
        lines.append(path)
        lines += [f"  {_line(finding)}" for finding in findings if finding.path == path]
    return "\n".join([*lines, "", f"{checked} {_count(findings)}."])


def to_markdown(findings: Sequence[Finding], checked: str) -> str:
    """A table, in which no word of the file's can be markup."""
    if not findings:
        return f"{checked.translate(_MARKDOWN)} No fault found."
    head = ["| file | rule | row | what is wrong |", "| --- | --- | ---: | --- |"]
    rows = [
        "| " + " | ".join(cell.translate(_MARKDOWN) for cell in _cells(finding)) + " |"
        for finding in findings
    ]
    return "\n".join([*head, *rows, "", f"{checked.translate(_MARKDOWN)} {_count(findings)}."])


def to_json(findings: Sequence[Finding], checked: str) -> str:
    """An object with `checked` and a list of `findings`."""
    found = [finding._asdict() for finding in findings]
    return json.dumps({"checked": checked, "findings": found}, indent=2)


FORMATS = {"text": to_text, "markdown": to_markdown, "json": to_json}


def _cells(finding: Finding) -> tuple[str, str, str, str]:
    row = "" if finding.row is None else str(finding.row)
    return finding.path, finding.rule, row, finding.message


def _line(finding: Finding) -> str:
    where = "" if finding.row is None else f"row {finding.row}: "
    return f"{finding.rule:<14}{where}{finding.message}"


def _count(findings: Sequence[Finding]) -> str:
    files = len({finding.path for finding in findings})
    return (
        f"{len(findings):,} fault{'s' if len(findings) > 1 else ''}"
        f" in {files:,} file{'s' if files > 1 else ''}"
    )
