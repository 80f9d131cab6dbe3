import datetime as dt
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from lcbench import store
from lcbench.journal import PlannedCell, RunPlan

OpenPage = Callable[..., Any]
SETTING = {
    "device": "Some GPU", "cpu": "Some CPU", "threads": 2, "ram_bytes": 8 * 2**30, "os": "Linux 6",
    "python": "3.11.7", "torch": "2.13.0", "lcbench_version": "0.1.0", "commit": "0123456789abcdef",
    "dirty": True, "wall_s": 90.0,
}  # fmt: skip


@pytest.fixture
def two_runs(sample: SimpleNamespace, results: Path) -> Path:
    """The sample as two runs, of which the older has an older task, and a noisy timing."""
    sample.write(results)
    rows = store.read_table([results]).table.to_pylist()
    newer = [{**row, **SETTING} for row in rows]
    for row in newer:
        if (row["kind"], row["context"], row["method"]) == ("prefill", 512, "recurrence"):
            row.update(step_ms_iqr=row["step_ms"] / 2, warning="noisy: the IQR is 50% of it")
        if row["status"] == "oom":
            row.update(asked_bytes=3 * 2**30, exit_signal="SIGKILL")
    day = dt.timedelta(days=1)
    older = [
        {**row, "run_id": "older", "cell_id": f"old {row['cell_id']}", "task_version": 1,
         "started_at": row["started_at"] - day}
        for row in newer if row["kind"] == "quality" and row["task"] == "mqar"
    ]  # fmt: skip
    for row in newer:
        if row["kind"] == "quality":
            row["task_version"] = 2
    store.write_rows(results / "quick" / "results.parquet", newer)
    store.write_rows(results / "quick" / "older.parquet", older)
    return results


def table(page: Any, column: str) -> pd.DataFrame:
    """The table that has a column."""
    return next(frame.value for frame in page.dataframe if column in frame.value)


def told(page: Any) -> str:
    return "\n".join(e.value for kind in (page.caption, page.text, page.code) for e in kind)


def test_a_run_is_told_with_its_machine_and_versions(two_runs: Path, open_page: OpenPage):
    page = open_page("runs")
    assert not page.exception
    shown = table(page, "Commit")
    assert shown["Run"].tolist() == ["run", "older"]
    newest = shown.iloc[0]
    assert newest["Started (UTC)"] == "2026-01-01 00:00"
    assert (newest["Took"], newest["RAM"]) == ("1 min 30 s", "8 GiB")
    assert newest["Commit"] == "012345678 + changes"
    assert (newest["torch"], newest["Python"], newest["Device"]) == ("2.13.0", "3.11.7", "Some GPU")
    assert (newest["Cells oom"], newest["Timings disturbed"]) == (3, 1)
    assert "Cells timeout" not in shown  # of nothing a column says nothing
    assert "CUDA" not in shown


def test_a_failure_tells_stage_reason_signal_and_bytes(
    sample: SimpleNamespace, two_runs: Path, open_page: OpenPage
):
    page = open_page("runs")
    shown = table(page, "Signal")
    assert set(shown["Reason"]) == {sample.error}
    assert sample.error not in told(page)
    first = shown.iloc[0]
    assert (first["Stage"], first["Signal"], first["Asked for"]) == ("measure", "SIGKILL", "3 GiB")


def test_noise_and_what_is_put_aside_are_told(two_runs: Path, open_page: OpenPage):
    page = open_page("runs")
    noisy = table(page, "Warning")
    assert noisy[["Method", "Context"]].to_numpy().tolist() == [["recurrence", 512]]
    assert "the worst is recurrence, prefill at 512" in told(page)
    aside = table(page, "Why")
    assert set(aside["Why"]) == {"of an older version of their task"}
    assert set(aside["Run"]) == {"older"}
    assert "16 of 96 rows are counted by no board" in told(page)


def test_filters_are_in_the_link(two_runs: Path, open_page: OpenPage):
    page = open_page("runs", run="older", method="vanilla")
    assert table(page, "Commit")["Run"].tolist() == ["older"]
    assert "1 run, 4 rows" in told(page)
    page = open_page("runs", status="oom")
    assert table(page, "Commit")["Run"].tolist() == ["run"]
    assert "3 of 3 rows gave no value: 3 oom" in told(page)
    page = open_page("runs", run="older", status="oom")
    assert "fits these filters" in page.info[0].value
    page = open_page("runs", q="window=512")
    assert set(table(page, "Why")["Method"]) == {"sliding-window"}


def test_the_downloads_hold_what_is_shown(
    two_runs: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
):
    import streamlit as st

    saved: dict[str, Any] = {}
    monkeypatch.setattr(
        st, "download_button", lambda label, data, **rest: saved.update({label: data()})
    )
    open_page("runs", run="older")
    lines = pd.read_csv(io.BytesIO(saved["Runs as CSV"]))
    assert lines[["run_id", "cells"]].to_numpy().tolist() == [["older", 16]]
    rows = pd.read_csv(io.BytesIO(saved["Rows as CSV"]))
    assert len(rows) == 16
    assert set(rows["reason"]) == {"task_version"}


@pytest.mark.parametrize("has_rows", [True, False])
def test_a_run_that_stopped_half_way_stands_on_top(
    has_rows: bool, two_runs: Path, open_page: OpenPage
):
    if not has_rows:
        for file in two_runs.rglob("*.parquet"):
            file.unlink()
    cells = tuple(PlannedCell(f"stem-{i}", f"cell {i}") for i in range(4))
    plan = RunPlan("live", "quick", "lcbench run --method all", "2026-01-03T00:00:00+00:00", cells)
    (two_runs / "quick" / "runs").mkdir(parents=True)
    (two_runs / "quick" / "runs" / "live.json").write_text(plan.to_json())
    page = open_page("runs")
    assert not page.exception
    assert "quick, interrupted since 2026-01-03 00:00: 0 of 4 cells done" in page.text[0].value
    assert page.code[0].value == "lcbench run --method all"


def test_a_corrupt_file_is_named_and_the_rest_shown(two_runs: Path, open_page: OpenPage):
    (two_runs / "broken.parquet").write_bytes(b"PAR1 no Parquet")
    page = open_page("runs")
    assert not page.exception
    assert "broken.parquet" in page.warning[0].value
    assert len(table(page, "Commit")) == 2


def test_an_empty_folder_gives_a_way_to_results(results: Path, open_page: OpenPage):
    page = open_page("runs")
    assert not page.exception
    assert "lcbench run --method all" in page.code[0].value


def test_rows_that_know_nothing_of_their_machine_are_a_run_too(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("runs")
    assert not page.exception
    assert table(page, "Run")["Run"].tolist() == ["run"]
