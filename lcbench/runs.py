"""What was measured when, on which machine, with which versions: rows to a line a run."""

from collections.abc import Sequence

import pandas as pd

from lcbench.disturbance import disturbed
from lcbench.rows import put_aside_reasons
from lcbench.store import STATUSES

RUN = ["run_id", "suite", "device_kind"]
"""What a line is of."""
SETTING = (
    *("device", "cpu", "threads", "ram_bytes", "os", "python", "torch", "cuda"),
    *("lcbench_version", "commit", "dirty", "env_id", "submitter"),
)
"""Columns of the machine and the versions, one value a run as a rule."""
RUN_COLUMNS = (
    *(*RUN, *SETTING, "suite_version", "cell_id", "kind", "method", "method_hash", "config"),
    *("dtype", "task", "task_version", "task_hash", "task_config", "data_hash", "train_context"),
    *("context", "seed", "status", "stage", "error", "exit_signal", "asked_bytes", "wall_s"),
    *("started_at", "warning", "throttled", "step_ms", "step_ms_iqr"),
)
"""The columns of rows read here."""


def with_reasons(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with `reason`: why no board counts them, by the keys of `rows.REASONS`, or null.

    Args:
        frame: Rows with at least `RUN_COLUMNS`, those that were measured again since too.
    """
    return frame.assign(reason=put_aside_reasons(frame))


def summarise_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """A line for each run, suite and kind of device, the newest first.

    Beside `RUN` and `SETTING`, which holds all its values where a run has several:

    - `started_at`, `ended_at`: when its first cell began and its last one ended.
    - `measured_s`: seconds its cells took, added up; cells that ran side by side count each.
    - `methods`, `cells`, `rows`: how many.
    - a column for each status: cells that ended so. A cell is `ok` when all its rows are, else
      what the first is that is not.
    - `disturbed`: timings that were noisy or throttled.
    - `put_aside`: rows that no board counts.

    Args:
        frame: Rows of `with_reasons`.
    """
    if frame.empty:
        names = ["started_at", "ended_at", "measured_s", "methods", "cells", "rows", *STATUSES]
        return pd.DataFrame(columns=[*RUN, *SETTING, *names, "disturbed", "put_aside"])
    cells = _cells(frame)
    by_run = cells.groupby(RUN)
    runs = by_run["started_at"].min().to_frame()
    runs["ended_at"] = by_run["ended_at"].max()
    runs["measured_s"] = by_run["wall_s"].sum()
    groups = frame.groupby(RUN)
    runs["methods"] = groups["method"].nunique()
    runs["cells"], runs["rows"] = by_run.size(), groups.size()
    counts = pd.get_dummies(cells["status"], dtype="int64")
    counts = counts.groupby([cells[name] for name in RUN]).sum()
    runs = runs.join(counts.reindex(columns=list(STATUSES), fill_value=0))
    runs["disturbed"] = disturbed(frame).groupby(RUN).size().reindex(runs.index, fill_value=0)
    runs["put_aside"] = groups["reason"].count()
    for name in SETTING:
        runs[name] = _values(frame, name).reindex(runs.index)
    runs = runs.reset_index().sort_values("started_at", ascending=False, ignore_index=True)
    return runs[[*RUN, *(name for name in runs if name not in RUN)]]


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that gave no value, the newest first; a method's own limits come last."""
    failed = frame[frame["status"] != "ok"]
    failed = failed.assign(limit=failed["status"] == "unsupported")
    order = ["limit", "started_at"]
    return failed.sort_values(order, ascending=[True, False], kind="stable").drop(columns="limit")


def put_aside_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """How many rows of each run and method no board counts, by `reason`; of `with_reasons`."""
    aside = frame[frame["reason"].notna()]
    keys: Sequence[str] = [*RUN, "method", "reason"]
    counts = aside.groupby(keys).agg(rows=("cell_id", "size"), started_at=("started_at", "min"))
    counts = counts.reset_index().sort_values("started_at", ascending=False, kind="stable")
    return counts.reset_index(drop=True)


def _cells(frame: pd.DataFrame) -> pd.DataFrame:
    """A line for each cell of each run: when, how long, and how it ended."""
    rows = frame.assign(
        is_ok=frame["status"] == "ok", wall_s=frame["wall_s"].astype("float64").fillna(0.0)
    )
    rows = rows.sort_values([*RUN, "cell_id", "is_ok"], kind="stable")
    cells = rows.drop_duplicates([*RUN, "cell_id"])
    return cells.assign(
        ended_at=cells["started_at"] + pd.to_timedelta(cells["wall_s"], unit="s"),
    )


def _values(frame: pd.DataFrame, name: str) -> pd.Series:
    """The value of a column in each run; all of them as text where there are several."""
    known = frame[[*RUN, name]].dropna().drop_duplicates()
    several = known.duplicated(RUN, keep=False)
    single = known[~several].set_index(RUN)[name].astype("object")
    joined = known[several].assign(**{name: known[name].astype(str)})
    return pd.concat([single, joined.groupby(RUN)[name].agg(", ".join).astype("object")])
