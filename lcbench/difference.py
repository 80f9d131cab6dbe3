"""What new rows change on the board: places and values before and after."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich.table import Table
from rich.text import Text

from lcbench import ranking
from lcbench.plans import suite_plan
from lcbench.store import latest
from lcbench.tables import board_value, new_table

SHOWN = (
    *("place_first", "quality", "coverage", "effective_context", "prefill_speed"),
    *("train_speed", "decode_speed", "memory", "state_bytes_per_token", "failed"),
)
"""Columns of `ranking.leaderboard` that are told apart."""
_MARKUP = str.maketrans({mark: f"&#{ord(mark)};" for mark in "&\\`*_[]<>|#~@"})
UNCHANGED = "The board stays as it is."


class Difference(NamedTuple):
    """One board, before and after."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """Of each entry its name and its values: `before → after` where they differ."""
    changed: int
    """Entries that are new or gone, or whose values differ."""


def board_differences(before: pd.DataFrame, after: pd.DataFrame) -> list[Difference]:
    """The boards on which two sets of rows differ.

    Args:
        before: Rows with at least `ranking.COLUMNS` and the keys of `store.latest`.
        after: The same, with what is new.
    """
    boards = [_boards(frame) for frame in (before, after)]
    keys = sorted({key for board in boards for key in board})
    told = [_difference(key, *(board.get(key, {}) for board in boards)) for key in keys]
    return [difference for difference in told if difference.changed]


def _boards(frame: pd.DataFrame) -> dict[tuple[str, str], dict[str, dict[str, str]]]:
    """Of each board its entries by label, in order, with their values as text."""
    if frame.empty:
        return {}
    frame = latest(frame)
    board = ranking.leaderboard(frame, suite_plan(frame))
    columns = [column for column in ranking.board_columns() if column.name in SHOWN]
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for (suite, device), part in board.groupby(ranking.GROUP):
        ordered = part.sort_values("quality", ascending=False, kind="stable")
        labels = ranking.entry_labels(ordered)
        found[(str(suite), str(device))] = {
            label: {column.name: board_value(row, column) for column in columns}
            for label, row in zip(labels, ordered.to_dict("records"), strict=True)
        }
    return found


def _difference(
    key: tuple[str, str],
    before: Mapping[str, Mapping[str, str]],
    after: Mapping[str, Mapping[str, str]],
) -> Difference:
    titles = {column.name: column for column in ranking.board_columns()}
    columns = ["Method", *(_title(titles[name]) for name in SHOWN)]
    rows: list[list[str]] = []
    changed = 0
    for label in dict.fromkeys([*after, *before]):
        old, new = before.get(label), after.get(label)
        name = label if old and new else f"{label} ({'new' if new else 'gone'})"
        values = [
            _step(old[column] if old else None, new[column] if new else None) for column in SHOWN
        ]
        changed += old != new
        rows.append([name, *values])
    return Difference(f"{key[0]} on {key[1]}", columns, rows, changed)


def _title(column: Any) -> str:
    name = "Place" if column.name == "place_first" else column.title
    return f"{name}, {column.unit}" if column.unit else name


def _step(old: str | None, new: str | None) -> str:
    if old is None or new is None:
        return old or new or ""
    return new if old == new else f"{old} → {new}"


def to_markdown(differences: Sequence[Difference]) -> str:
    """The boards as tables in Markdown; what could be read as markup is escaped."""
    parts: list[str] = []
    for difference in differences:
        head = "| " + " | ".join(difference.columns) + " |"
        rule = "| --- |" + " ---: |" * (len(difference.columns) - 1)
        rows = ["| " + " | ".join(map(escape, row)) + " |" for row in difference.rows]
        parts.append("\n".join([f"**{escape(difference.title)}**", "", head, rule, *rows]))
    return "\n\n".join(parts) or UNCHANGED


def to_tables(differences: Sequence[Difference]) -> list[Table]:
    """The boards as tables for a terminal."""
    tables: list[Table] = []
    for difference in differences:
        table = new_table(f"Leaderboard, before → after: {difference.title}")
        for place, title in enumerate(difference.columns):
            table.add_column(title.replace(", ", "\n"), justify="right" if place else "left")
        for row in difference.rows:
            table.add_row(*map(Text, row))
        tables.append(table)
    return tables


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    return " ".join(text.split()).translate(_MARKUP)
