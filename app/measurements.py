"""Every measurement of a method, with its code, its machine and the command that repeats it."""

from typing import Any

import numpy as np
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
    """The newest row of each cell of a method, the last measured first, whatever its version.

    Beside `COLUMNS`: `label`, `MEASURED`, `id` (of the row, for a link), `value` (what it measured,
    as text), `counts` (whether the leaderboard takes it) and `command`.
    """
    return _measurements(results.stamp, method, results)


@st.cache_resource(max_entries=32, show_spinner=False)
def _measurements(stamp: data.Stamp, method: str, _results: data.Results) -> pd.DataFrame:
    table = _table(stamp)
    frame = table.filter(pc.field("method") == method).to_pandas(types_mapper=_nullable)
    keys = list(store.ROW_KEY)
    # The newest of each cell, and those alone whose configs could be read.
    frame = frame.merge(_results.rows[keys], on=keys)
    frame["dtype"] = frame["dtype"].fillna("")
    labels = _results.board[[*ranking.ENTRY, "label"]]
    frame = frame.merge(labels, on=ranking.ENTRY, how="left")
    frame["label"] = frame["label"].fillna(frame["method"])
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    is_quality = frame["kind"] == "quality"
    frame[MEASURED] = np.where(
        is_quality, frame["task"], frame["kind"].map(charts.KIND_TITLES.get).fillna(frame["kind"])
    )
    frame["id"] = [f"{row['cell_id']}.{row['context']}" for row in rows]
    frame["value"] = [value_text(row) for row in rows]
    frame["command"] = [reproduce.run_command(row) for row in rows]
    counted = data.load_comparable(_results)[keys]
    frame["counts"] = frame[keys].merge(counted, how="left", indicator=True)["_merge"] == "both"
    order = ["started_at", "suite", "kind", "task", "context", "seed"]
    return frame.sort_values(order, ascending=[False] + [True] * 5, ignore_index=True)


def value_text(row: dict[Any, Any]) -> str:
    """What a row measured, in its unit, or why it did not."""
    if row["status"] != "ok":
        return charts.STATUS_TITLES.get(row["status"], str(row["status"]))
    if row["kind"] == "quality":
        return score_text(row["metric"], row["score"])
    parts = [f"{row['step_ms']:,.3g} ms"] if row["step_ms"] is not None else []
    if row["vs_vanilla"] is not None:
        parts.append(f"{row['vs_vanilla']:.2f}× vanilla")
    if row["peak_bytes"] is not None:
        parts.append(f"peak {charts.size_text(row['peak_bytes'])}")
    return ", ".join(parts)


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
