"""The Runs page: what was measured when, on what, with which versions, and what became of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from lcbench import runs, store
from lcbench.app import charts, data, page, url
from lcbench.disturbance import disturbed, tell_disturbed
from lcbench.rows import ENTRY, REASONS
from lcbench.status import RunStatus, read_status
from lcbench.terminal import duration

ALL = "all"
"""The choice that leaves out nothing."""
COMMIT_DIGITS = 9


class Measured(NamedTuple):
    """Every row there is, those measured again since too, and a line for each run."""

    rows: pd.DataFrame
    summary: pd.DataFrame


def show() -> None:
    """Draw the page."""
    if data.load_results().board.empty:
        _show_live()
    view = page.open_page(
        "Runs",
        "What was measured when, on which machine and with which versions; what failed and why; "
        "what was disturbed; and what no board counts.",
    )
    _show_live()
    measured = load_runs()
    rows = _choose(measured.rows, view)
    if rows.empty:
        st.info("Nothing was measured that fits these filters.", icon=":material/search_off:")
        st.stop()
    summary = measured.summary.merge(rows[runs.RUN].drop_duplicates(), on=runs.RUN)
    count = "1 run" if len(summary) == 1 else f"{len(summary):,} runs"
    st.caption(f"{count}, {len(rows):,} rows")
    page.table(runs_table(summary), column_config=_numbers(), height="content", alt="Runs")
    _download(rows, summary, view)
    _show_failures(rows)
    _show_disturbed(rows)
    _show_put_aside(rows)


def load_runs() -> Measured:
    """The runs of all folders, read anew only when a file came, went or changed."""
    results = data.load_results()
    return _load(results.stamp, tuple(map(str, data.results_paths())), results)


def runs_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Lines of `runs.summarise_runs` as they are shown; columns that say nothing are left out."""
    spans = (summary["ended_at"] - summary["started_at"]).dt.total_seconds()
    dirty = summary["dirty"].map(lambda value: " + changes" if value is True else "")
    commit = summary["commit"].fillna(page.MISSING).astype(str).str[:COMMIT_DIGITS]
    memory = summary["ram_bytes"].map(_size)
    shown = {
        "Started (UTC)": summary["started_at"].dt.strftime("%Y-%m-%d %H:%M"),
        "Took": spans.map(duration),
        "Device": summary["device"],
        "Cells": summary["cells"],
        **{f"Cells {status}": summary[status] for status in store.STATUSES},
        "Methods": summary["methods"],
        "Timings disturbed": summary["disturbed"],
        "Rows put aside": summary["put_aside"],
        "lcbench": summary["lcbench_version"],
        "Commit": commit + dirty,
        "torch": summary["torch"],
        "CUDA": summary["cuda"],
        "Python": summary["python"],
        "CPU": summary["cpu"],
        "Threads": summary["threads"],
        "RAM": memory,
        "System": summary["os"],
        "Submitter": summary["submitter"],
        "Run": summary["run_id"],
    }
    table = pd.DataFrame({name: column.to_numpy() for name, column in shown.items()})
    silent = [
        name
        for name in table
        if table[name].isna().all() or (str(name).startswith("Cells ") and (table[name] == 0).all())
    ]
    for name in ("CPU", "Device"):
        if name == "CPU" and (summary["cpu"] == summary["device"]).all():
            silent.append(name)
    return _as_text(table.drop(columns=silent))


def failures_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `runs.failures` as they are shown."""
    return pd.DataFrame(
        {
            "Method": rows["label"],
            "Status": rows["status"],
            "Measurement": rows["kind"].map(charts.KIND_TITLES),
            "Task": rows["task"],
            "Context": rows["context"],
            "Seed": rows["seed"],
            "Stage": rows["stage"],
            "Reason": rows["error"],
            "Signal": rows["exit_signal"],
            "Asked for": rows["asked_bytes"].map(_size),
            "After": rows["wall_s"].map(lambda s: page.MISSING if pd.isna(s) else duration(s)),
            "Run": rows["run_id"],
        }
    )


def _choose(rows: pd.DataFrame, view: page.View) -> pd.DataFrame:
    """The rows that pass the filters."""
    here = (rows["suite"] == view.suite) & (rows["device_kind"] == view.device_kind)
    whole = view.results.board
    whole = whole[(whole["suite"] == view.suite) & (whole["device_kind"] == view.device_kind)]
    if len(view.board) < len(whole):
        here &= rows["method"].isin(view.board["method"])
    rows = rows[here]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        run = url.choose(
            "Run", [ALL, *_newest_first(rows)], "run", lambda r: "All" if r == ALL else r, width=260
        )
        methods = sorted(rows["method"].unique())
        method = url.choose(
            "Method", [ALL, *methods], "method", lambda m: "All" if m == ALL else m, width=220
        )
        present = [status for status in store.STATUSES if (rows["status"] == status).any()]
        statuses = url.choose_some("Status", present, "status", placeholder="Any status", width=260)
    for name, wanted in (("run_id", run), ("method", method)):
        if wanted != ALL:
            rows = rows[rows[name] == wanted]
    return rows[rows["status"].isin(statuses)] if statuses else rows


def _newest_first(rows: pd.DataFrame) -> list[str]:
    started = rows.groupby("run_id")["started_at"].min()
    return [str(name) for name in started.sort_values(ascending=False).index]


def _download(rows: pd.DataFrame, summary: pd.DataFrame, view: page.View) -> None:
    name = f"lcbench-runs-{view.suite}-{view.device_kind}"
    with st.container(horizontal=True):
        page.download(
            "Runs as CSV",
            lambda: page.csv(summary),
            f"{name}.csv",
            "The runs above, a line each, unrounded.",
        )
        page.download(
            "Rows as CSV",
            lambda: page.csv(rows),
            f"{name}-rows.csv",
            "Every row that passes the filters, with where, how and why it ended.",
        )


def _show_failures(rows: pd.DataFrame) -> None:
    failed = runs.failures(rows)
    st.subheader("Failures", anchor=False)
    if failed.empty:
        st.caption(f"None: all {len(rows):,} rows gave a value.")
        return
    counts = failed["status"].value_counts()
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    st.caption(f"{len(failed):,} of {len(rows):,} rows gave no value: {told}.")
    page.table(failures_table(failed), column_config=_numbers(), alt="Failures")


def _show_disturbed(rows: pd.DataFrame) -> None:
    found = disturbed(rows)
    if found.empty:
        return
    st.subheader("Disturbed timings", anchor=False)
    st.text(tell_disturbed(rows))
    page.table(
        pd.DataFrame(
            {
                "Method": found["label"],
                "Measurement": found["kind"].map(charts.KIND_TITLES),
                "Context": found["context"],
                "IQR (% of median)": (100 * found["scatter"]).round(0),
                "Throttled": found["is_throttled"].map({True: "yes", False: "no"}),
                "Warning": found["warning"],
                "Run": found["run_id"],
            }
        ),
        column_config=_numbers(),
        alt="Disturbed timings",
    )


def _show_put_aside(rows: pd.DataFrame) -> None:
    aside = runs.put_aside_rows(rows)
    st.subheader("Put aside", anchor=False)
    if aside.empty:
        st.caption("Nothing: every row above may stand on the board.")
        return
    st.caption(f"{aside['rows'].sum():,} of {len(rows):,} rows are counted by no board.")
    page.table(
        pd.DataFrame(
            {
                "Method": aside["method"],
                "Rows": aside["rows"],
                "Why": aside["reason"].map(REASONS),
                "Since (UTC)": aside["started_at"].dt.strftime("%Y-%m-%d %H:%M"),
                "Run": aside["run_id"],
            }
        ),
        alt="Rows put aside",
    )


def _show_live() -> None:
    """Runs that have not sealed their results yet, of folders on this machine."""
    for run in _read_live(data.results_paths()):
        total = len(run.plan.cells)
        what = "in progress" if run.is_live else "interrupted"
        with st.container(border=True):
            st.text(
                f"{run.plan.suite}, {what} since {run.plan.started_at[:16].replace('T', ' ')}:"
                f" {run.done} of {total} cells done, {run.failed} of them failed,"
                f" {len(run.under_way)} under way"
            )
            st.progress(run.done / total if total else 0.0)
            if run.under_way:
                st.text("Now: " + "; ".join(cell.label for cell in run.under_way))
            if not run.is_live:
                st.code(run.plan.command, language="shell")


def _read_live(paths: Sequence[Path]) -> list[RunStatus]:
    found: list[RunStatus] = []
    for path in paths:
        try:
            found += read_status(path) if path.is_dir() else []
        except OSError:  # a folder that goes while it is read has no run to tell of
            continue
    return found


def _with_labels(rows: pd.DataFrame, board: pd.DataFrame) -> pd.DataFrame:
    """Rows with the names that the board has for their entries; else their method's."""
    names = board[[*ENTRY, "label"]]
    rows = rows.assign(dtype=rows["dtype"].fillna("")).merge(names, on=ENTRY, how="left")
    return rows.assign(label=rows["label"].fillna(rows["method"]))


def _size(count: Any) -> str:
    return page.MISSING if pd.isna(count) else charts.size_text(float(count))


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one kind of value in each column, as a browser's table wants it."""
    texts = [name for name in table if table[name].dtype == object]
    return table.assign(
        **{
            str(name): table[name].map(lambda value: page.MISSING if pd.isna(value) else str(value))
            for name in texts
        }
    )


def _numbers() -> dict[str, Any]:
    """Counts with separators of thousands."""
    counts = ["Cells", *(f"Cells {status}" for status in store.STATUSES), "Methods", "Rows"]
    counts += ["Timings disturbed", "Rows put aside", "Context", "Seed"]
    return {name: st.column_config.NumberColumn(format="localized") for name in counts}


@st.cache_resource(max_entries=2, show_spinner="Reading runs …")
def _load(stamp: data.Stamp, paths: tuple[str, ...], _results: data.Results) -> Measured:
    frame = store.read_rows([Path(path) for path in paths], runs.RUN_COLUMNS).frame
    rows = runs.with_reasons(frame)
    return Measured(_with_labels(rows, _results.board), runs.summarise_runs(rows))
