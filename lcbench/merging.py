"""Rows of several folders, sealed into one file a suite: what `lcbench merge` does."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from lcbench import store
from lcbench.config import UsageError
from lcbench.locks import is_locked
from lcbench.places import Place

MOST_TOLD = 5


class Merged(NamedTuple):
    """What was sealed of one suite."""

    suite: str
    cells: int
    rows: int
    path: Place


def merge(sources: Sequence[Place], target: Place, *, newest: bool = False) -> list[Merged]:
    """Seal the rows that lie under some folders into one file a suite, under another.

    The same row in several places is one row. Two measurements of one cell, on the same machine for
    what a cell cost, are a conflict: no one can tell which was meant.

    Args:
        sources: Folders of results, of a shard or a suite, or files.
        target: Where to write `<suite>/<day>-<digest>.parquet`.
        newest: Of several measurements of a cell take the newest.

    Raises:
        UsageError: Nothing to merge, a file that cannot be read, a run under way, a conflict, or a
            target that lies in a source.
        OSError: The target cannot be written.
    """
    for source in sources:
        _refuse_unfit(source, target)
    table = _without_repeats(_read(sources))
    table = _settle(table, newest=newest)
    today = datetime.datetime.now(datetime.UTC).date()
    merged: list[Merged] = []
    suites: list[str] = table["suite"].to_pylist()
    for suite in sorted(set(suites)):
        part = table.filter(pa.array([name == suite for name in suites]))
        cells = len(set(part["cell_id"].to_pylist()))
        merged.append(Merged(suite, cells, len(part), store.seal(part, target / suite, today)))
    return merged


def _refuse_unfit(source: Place, target: Place) -> None:
    if str(target) == str(source) or str(target).startswith(f"{str(source).rstrip('/')}/"):
        raise UsageError(
            f"{target} lies in {source}, whose rows would be there twice; name another --results"
        )
    if isinstance(source, Path) and any(is_locked(path) for path in source.rglob("runs/*.json")):
        raise UsageError(
            f"a run is measuring in {source}; wait until lcbench status says that it is done"
        )


def _read(sources: Sequence[Place]) -> pa.Table:
    read = [store.read_table([source]) for source in sources]
    problems = [problem for _, problems in read for problem in problems]
    if problems:
        path, reason = problems[0]
        raise UsageError(
            f"files that cannot be read: {len(problems)}, the first {path} ({reason}); measure"
            " again what they held, or take them away"
        )
    for source, (table, _) in zip(sources, read, strict=True):
        if not len(table):
            raise UsageError(f"no results in {source}; lcbench run --results {source} makes some")
    return pa.concat_tables([table for table, _ in read])


def _without_repeats(table: pa.Table) -> pa.Table:
    """The table without rows that say the same as an earlier one."""
    seen: set[str] = set()
    keep: list[bool] = []
    for line in store.canonical_rows(table):
        keep.append(line not in seen)
        seen.add(line)
    return table.filter(pa.array(keep))


def _settle(table: pa.Table, *, newest: bool) -> pa.Table:
    """The table with one measurement of each cell at each context."""
    names = [*store.ROW_KEY, "env_id", "method", "started_at"]
    frame: pd.DataFrame = table.select(names).to_pandas()
    if frame.duplicated(list(store.ROW_KEY)).any():
        run = frame.loc[frame.duplicated(list(store.ROW_KEY)), "run_id"].iloc[0]
        raise UsageError(
            f"rows of run {run} say different things in different folders: one of them was edited;"
            " leave that folder out"
        )
    frame["machine"] = frame["env_id"].where(frame["kind"] != "quality")
    key = [*store.CELL_KEY, "machine"]
    twice = frame[frame.duplicated(key, keep=False)]
    if not newest and not twice.empty:
        raise UsageError(_conflict(twice.drop_duplicates(key), sorted(set(twice["run_id"]))))
    chosen = store.latest(frame.assign(place=range(len(frame))), key)
    return table.take(pa.array(sorted(chosen["place"])))


def _conflict(cells: pd.DataFrame, runs: Sequence[str]) -> str:
    shown = cells.head(MOST_TOLD)
    labels = [
        f"{method} · {kind} at {context:,}"
        for method, kind, context in zip(
            shown["method"], shown["kind"], shown["context"], strict=True
        )
    ]
    more = f" and {len(cells) - MOST_TOLD} more" if len(cells) > MOST_TOLD else ""
    return (
        f"measured more than once, by runs {', '.join(runs)}: {'; '.join(labels)}{more}. Leave a"
        " folder out, or keep the newest of each with --newest"
    )
