"""What a submission must satisfy: the rules by name, and the faults found against them."""

from collections.abc import Iterable
from typing import NamedTuple

RULES: dict[str, str] = {
    "path": (
        "A file is results/published/<suite>/<method>/<date>-<digest>.parquet, in plain lower-case"
        " names, and nothing else lies there."
    ),
    "regular-file": (
        "A file is a regular one that nobody can run: no link, folder, device or submodule."
    ),
    "own-paths": (
        "A pull request with results adds them, all of one method, and at most that method's file;"
        " it changes nothing else and takes nothing away."
    ),
    "size": "A file has at most 1,000,000 bytes.",
    "parquet": "A file can be read as Parquet, its checksums right.",
    "layout": (
        "A file is as lcbench seals it: one row group, its pages one after the other with nothing"
        " between them, no words of anybody's own beside the rows."
    ),
    "unpacked": (
        "A file has 1 to 20,000 rows that unpack to at most 32,000,000 bytes, by what each page"
        " says of itself before it is unpacked."
    ),
    "schema": "Its columns are those of lcbench.store.SCHEMA, in name, order, type and nulls.",
    "digest": "Its name holds the digest of its rows.",
    "date": "Its name holds the day, in UTC, on which its newest row was begun.",
    "text": (
        "Strings are short, printable, free of markup and paths, and of the form of their kind."
    ),
    "finite": "No number is NaN or infinite.",
    "enumeration": "Words with few choices are among them.",
    "range": "Numbers lie where such a number can lie.",
    "nulls": "A row has what its kind and status call for, and nothing that they rule out.",
    "suite": "The suite exists, is no draft, and has the version the rows name; all are of it.",
    "method": "Rows are of the method the path names, and of the anchor.",
    "method-hash": "The method's file is the one in the tree, to the byte.",
    "task-hash": "The tasks' files and versions are those in the tree.",
    "harness-hash": "The code that trained and measured is that of the tree.",
    "config": "A config is canonical JSON with the fields that the method declares.",
    "cell-id": "A cell's id is what its row's identity hashes to.",
    "cell": "Rows of one cell are of one measurement and agree in all but what each context gives.",
    "plan": "Every cell is one that the suite plans.",
    "complete": "Every cell the suite plans is there, at every context, failures as failures.",
    "seeds": (
        "Every task has the suite's own seeds, or all from 0 up to one beyond them, the same for"
        " the method and the anchor."
    ),
    "key": "No two rows, in this file or among those published, have one key.",
    "anchor": (
        "vanilla's rows lie beside: of the same examples and corpus for quality, of the same"
        " machine and versions for cost; where they were published before, they say the same."
    ),
    "machine": "Rows with one env_id say the same of the machine, and of one kind of device.",
    "task": "Metric, ceiling, floor, budget and number of examples are those of the task and plan.",
    "score": "Scores are what their examples, bits and distances add up to.",
    "curve": "A learning curve rises in steps and seconds, and ends where its training did.",
    "timing": "Medians, spreads and ratios are what the raw timings give.",
    "rate": "Tokens a second are what the time of a step gives.",
    "wall-clock": "What was timed fits into the time the cell took.",
    "memory": (
        "Peaks lie between what the call must hold (a training step a gradient for every weight,"
        " any call its output) and what the device has."
    ),
    "roofline": "Nothing computes or reads faster than any device of its kind could.",
    "future": "No row begins or ends after now, nor before 2025.",
    "stopped": "Validating came to its end.",
}
"""Every rule's name and what it holds, in one sentence."""


class Finding(NamedTuple):
    """One way in which a submission breaks a rule."""

    path: str
    rule: str
    """A key of `RULES`."""
    message: str
    row: int | None = None
    """Number of the first row it was found in, from 0; None for a fault of the whole file."""


class Findings:
    """The faults of one file; a fault that many rows share is told once, with their number.

    Args:
        path: What the file is called.
    """

    def __init__(self, path: str) -> None:
        self.path = _printable(path)
        self._first: dict[tuple[str, str], Finding] = {}
        self._count: dict[tuple[str, str], int] = {}
        self._rows: dict[str, set[int]] = {}

    def add(self, rule: str, message: str, row: int | None = None, *, about: str = "") -> None:
        """Take note of a fault.

        Args:
            rule: The rule it breaks.
            message: What is wrong, with the value, and what would be right.
            row: The row it is found in.
            about: What faults of several rows have in common, a column mostly; those of one rule
                and subject are one finding. By default its message.
        """
        assert rule in RULES, rule
        key = (rule, about or message)
        self._first.setdefault(key, Finding(self.path, rule, _printable(message), row))
        self._count[key] = self._count.get(key, 0) + 1
        if row is not None:
            self._rows.setdefault(rule, set()).add(row)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._first)

    def broken(self) -> set[str]:
        """The rules that were broken so far."""
        return {rule for rule, _ in self._first}

    def rows_that_break(self, rules: Iterable[str]) -> set[int]:
        """Numbers of the rows in which some rules were seen to be broken."""
        return set().union(*(self._rows.get(rule, ()) for rule in rules))

    def listed(self) -> list[Finding]:
        """All of them, in the order they were found."""
        found: list[Finding] = []
        for key, finding in self._first.items():
            others = self._count[key] - 1
            more = f" (and {others:,} more row{'s' if others > 1 else ''})" if others else ""
            found.append(finding._replace(message=finding.message + more))
        return found


def _printable(text: str) -> str:
    """Text that may hold a stranger's words, so that it stays on its line and moves no cursor."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
