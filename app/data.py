"""What the pages show: rows read and ranked once for each content of the folders."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import streamlit as st

from lcbench import ranking, slices, store, tiers
from lcbench.app import charts, launch
from lcbench.disturbance import DISTURBANCE_COLUMNS
from lcbench.families import family_of
from lcbench.paths import local_results, published_results
from lcbench.plans import suite_plan

COLUMNS = list(
    dict.fromkeys(
        (
            *(*store.ROW_KEY, *ranking.COLUMNS, *DISTURBANCE_COLUMNS),
            *ranking.GENERATION_COLUMNS,
            *("tokens_per_s", "stage", "error", "wall_s"),
        )
    )
)

Stamp = tuple[tuple[str, int, int], ...]
"""Path, bytes and time of change of each file: differs whenever what the files hold may."""


class Results(NamedTuple):
    """What the folders hold. Shared by all sessions: copy before changing."""

    stamp: Stamp
    rows: pd.DataFrame
    """Of each cell the newest rows, with `tier`."""
    plan: pd.DataFrame | None
    """What their suites ask for."""
    problems: list[tuple[str, str]]
    """Files and rows left out, and why."""
    board: pd.DataFrame
    """`ranking.leaderboard`, with `family` and `label`: the name of an entry on every page."""
    styles: dict[str, charts.Style]
    """How an entry is drawn on every page, by its label."""


def results_paths() -> list[Path]:
    """The files and folders to read: what the launcher named, else published and local results."""
    named = [Path(part) for part in os.environ.get(launch.RESULTS, "").split(os.pathsep) if part]
    return named or [published_results(), local_results()]


def load_results() -> Results:
    """All results, read anew only when a file came, went or changed."""
    paths = results_paths()
    return _load(_stamp(paths), tuple(map(str, paths)))


def load_board(
    results: Results, suite: str, device_kind: str, task: str | None, context: int | None
) -> pd.DataFrame:
    """`slices.leaderboard` of one suite and kind of device, with `family` and `label`."""
    if task is None and context is None:
        board = results.board
        return board[(board["suite"] == suite) & (board["device_kind"] == device_kind)]
    return _board(results.stamp, suite, device_kind, task, context, results)


def load_contexts_held(results: Results) -> pd.DataFrame:
    """`ranking.effective_contexts` of all results, with `label`."""
    return _contexts_held(results.stamp, results)


def load_scores(results: Results) -> pd.DataFrame:
    """`ranking.task_scores` of all results, with `label`."""
    return _scores(results.stamp, results)


def load_comparable(results: Results) -> pd.DataFrame:
    """`ranking.comparable` rows, with `label`."""
    return _comparable(results.stamp, results)


def load_learning_curves(results: Results) -> pd.DataFrame:
    """`ranking.learning_curves` of all results, with `label`."""
    return _learning_curves(results.stamp, results)


def load_generated_scores(results: Results) -> pd.DataFrame:
    """`ranking.generated_scores` of all results, with `label`."""
    return _generated_scores(results.stamp, results)


def load_exponents(results: Results, quantity: str) -> pd.DataFrame:
    """`ranking.fit_exponents` of one quantity, with `label`."""
    return _exponents(results.stamp, quantity, results)


def with_labels(frame: pd.DataFrame, results: Results) -> pd.DataFrame:
    """A frame that has `ranking.ENTRY`, with `label` and `family` added."""
    return frame.merge(results.board[[*ranking.ENTRY, "label", "family"]], on=ranking.ENTRY)


def _stamp(paths: Sequence[Path]) -> Stamp:
    found: list[tuple[str, int, int]] = []
    for path in paths:
        for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
            try:
                status = file.stat()
            except OSError:
                continue
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(found)


@st.cache_resource(max_entries=2, show_spinner="Reading results …")
def _load(stamp: Stamp, paths: tuple[str, ...]) -> Results:
    read = tiers.read_rows([Path(path) for path in paths], COLUMNS)
    rows = store.latest(read.frame)
    problems = [(str(path), reason) for path, reason in read.problems]
    rows, refused = _with_readable_configs(rows)
    plan = suite_plan(rows)
    board = ranking.leaderboard(rows, plan)
    board["label"] = ranking.entry_labels(board)
    board["family"] = board["method"].map({name: family_of(name) for name in set(board["method"])})
    return Results(stamp, rows, plan, problems + refused, board, charts.method_styles(board))


def _with_readable_configs(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Rows whose configs are JSON objects, as names are made of their fields; and the others."""
    unreadable = pd.Series(data=False, index=rows.index)
    for column in ("config", "task_config"):
        broken = [text for text in rows[column].dropna().unique() if not _is_json_object(text)]
        unreadable |= rows[column].isin(broken)
    if not unreadable.any():
        return rows, []
    counts = rows.loc[unreadable, "method"].value_counts()
    refused = [
        (f"{count} rows of method {method!r}", "their config is not a JSON object")
        for method, count in counts.items()
    ]
    return rows[~unreadable], refused


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@st.cache_resource(max_entries=64, show_spinner=False)
def _board(
    stamp: Stamp,
    suite: str,
    device_kind: str,
    task: str | None,
    context: int | None,
    _results: Results,
) -> pd.DataFrame:
    rows, plan = _results.rows, _results.plan
    rows = rows[(rows["suite"] == suite) & (rows["device_kind"] == device_kind)]
    plan = plan if plan is None else plan[plan["suite"] == suite]
    return with_labels(slices.leaderboard(rows, plan, task, context), _results)


@st.cache_resource(max_entries=2, show_spinner=False)
def _contexts_held(stamp: Stamp, _results: Results) -> pd.DataFrame:
    held = ranking.effective_contexts(_results.rows, _results.plan)
    return with_labels(held, _results)


@st.cache_resource(max_entries=2, show_spinner=False)
def _scores(stamp: Stamp, _results: Results) -> pd.DataFrame:
    return with_labels(ranking.task_scores(_results.rows), _results)


@st.cache_resource(max_entries=2, show_spinner=False)
def _comparable(stamp: Stamp, _results: Results) -> pd.DataFrame:
    return with_labels(ranking.comparable(_results.rows).frame, _results)


@st.cache_resource(max_entries=2, show_spinner=False)
def _learning_curves(stamp: Stamp, _results: Results) -> pd.DataFrame:
    # Lists, which no other page needs: read when this one is opened, not with every page.
    columns = [*store.ROW_KEY, *ranking.COLUMNS, *ranking.CURVE_COLUMNS]
    files = [Path(path) for path, *_ in stamp]
    rows = store.latest(store.read_rows(files, columns).frame)
    rows, _ = _with_readable_configs(rows)
    return with_labels(ranking.learning_curves(rows), _results)


@st.cache_resource(max_entries=2, show_spinner=False)
def _generated_scores(stamp: Stamp, _results: Results) -> pd.DataFrame:
    del stamp
    return with_labels(ranking.generated_scores(_results.rows), _results)


@st.cache_resource(max_entries=8, show_spinner=False)
def _exponents(stamp: Stamp, quantity: str, _results: Results) -> pd.DataFrame:
    return with_labels(ranking.fit_exponents(_results.rows, quantity), _results)
