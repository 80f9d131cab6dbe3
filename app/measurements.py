"""Every measurement of a method, with its code, its machine and the command that repeats it."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from lcbench import ranking, reproduce, store
from lcbench.app import charts, data

HASHES = ("method_hash", "task_hash", "data_hash", "harness_hash")
CODE = (*HASHES, "lcbench_version", "commit", "dirty", "submitter", "run_id", "cell_id")
MACHINE = (
    *("env_id", "device", "device_bytes", "cpu", "threads", "ram_bytes", "huge_pages"),
    *("omp_wait_policy", "os", "python", "torch", "cuda", "memory_source"),
)
COLUMNS = tuple(
    dict.fromkeys(
        [
            *(*store.ROW_KEY, *reproduce.COLUMNS, *CODE, *MACHINE),
            *("suite_version", "task_version", "train_context", "status", "stage", "error"),
            *("metric", "score", "floor", "step_ms", "tokens_per_s", "vs_vanilla", "peak_bytes"),
            *("state_bytes", "started_at", "wall_s", "warning"),
        ]
    )
)
MEASURED = "measured"
"""The column that says what a row measured: a task's name, or a step's."""


def load_measurements(results: data.Results, method: str) -> pd.DataFrame:
    """Every row of a method, of whatever version and machine, the last measured first.

    Beside `COLUMNS`: `label`, `MEASURED`, `id` (of the row, for a link), `value` (what it measured,
    as text), `command`, `is_newest` (of its cell) and `counts` (whether the leaderboard takes it).
    """
    return _measurements(results.stamp, method, results)


@st.cache_resource(max_entries=32, show_spinner=False)
def _measurements(stamp: data.Stamp, method: str, _results: data.Results) -> pd.DataFrame:
    table = _table(stamp)
    frame = table.filter(pc.field("method") == method).to_pandas(types_mapper=_nullable)
    frame["dtype"] = frame["dtype"].fillna("")
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    frame["command"] = [_command(row) for row in rows]
    frame["value"] = [value_text(row) for row in rows]
    frame["id"] = [f"{row['cell_id']}.{row['context']}.{row['run_id']}" for row in rows]
    frame[MEASURED] = [
        row["task"]
        if row["kind"] == "quality"
        else charts.KIND_TITLES.get(row["kind"], row["kind"])
        for row in rows
    ]
    frame["is_newest"] = _is_among(frame, _results.rows)
    frame["counts"] = _is_among(frame, data.load_comparable(_results))
    labels = _results.board[[*ranking.ENTRY, "label"]]
    frame = frame.merge(labels, on=ranking.ENTRY, how="left")
    frame["label"] = frame["label"].fillna(frame["method"])
    # Rows whose configs cannot be read are named in the banner.
    frame = frame[frame["command"].notna()]
    order = ["started_at", "suite", "kind", "task", "context", "seed"]
    return frame.sort_values(order, ascending=[False] + [True] * 5, ignore_index=True)


def _is_among(frame: pd.DataFrame, others: pd.DataFrame) -> list[bool]:
    """Whether each row is one of others, which may be many."""
    keys = list(store.ROW_KEY)
    known = set(others.loc[others["cell_id"].isin(frame["cell_id"]), keys].itertuples(index=False))
    return [row in known for row in frame[keys].itertuples(index=False)]


def _command(row: dict[Any, Any]) -> str | None:
    try:
        return reproduce.run_command(row)
    except ValueError:
        return None


def value_text(row: dict[Any, Any]) -> str:
    """What a row measured, in its unit, or why it did not."""
    if row["status"] != "ok":
        return charts.STATUS_TITLES.get(row["status"], str(row["status"]))
    if row["kind"] == "quality":
        return score_text(row["metric"], row["score"])
    parts = [f"{time_text(row['step_ms'])} ms"] if row["step_ms"] is not None else []
    if row["vs_vanilla"] is not None:
        parts.append(f"{row['vs_vanilla']:.2f}× vanilla")
    if row["peak_bytes"] is not None:
        parts.append(f"peak {charts.size_text(row['peak_bytes'])}")
    return ", ".join(parts)


def time_text(step_ms: float) -> str:
    """Milliseconds with three digits, or all of those before the point."""
    return f"{step_ms:.3g}" if step_ms < 100 else f"{step_ms:,.0f}"


def score_text(metric: Any, score: float | None) -> str:
    """A score in its metric's unit; empty where there is none."""
    if score is None or pd.isna(score):
        return ""
    unit, factor, digits = charts.METRIC_UNITS.get(str(metric), ("", 1.0, 3))
    return f"{factor * score:.{digits}f} {unit}".strip()


@st.cache_resource(max_entries=2, show_spinner="Reading measurements …")
def _table(stamp: data.Stamp) -> pa.Table:
    """All rows of all files, kept as Arrow: few of them are ever looked at."""
    return store.read_table(data.results_paths(), COLUMNS).table


def _nullable(kind: Any) -> Any:
    return {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get(kind)
