import datetime as dt
from pathlib import Path

import pandas as pd
import pytest

from lcbench import store
from lcbench.ranking import comparable
from lcbench.runs import RUN_COLUMNS, failures, put_aside_rows, summarise_runs, with_reasons

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def row(minute: float = 0, cell: str = "cell", context: int = 64, **columns: object) -> store.Row:
    return {
        "run_id": "first", "cell_id": cell, "kind": "quality", "suite": "quick",
        "suite_version": 1, "task": "mqar", "task_version": 1, "task_config": "{}",
        "method": "vanilla", "config": "{}", "train_context": 64, "context": context, "seed": 0,
        "status": "ok", "metric": "accuracy", "score": 0.5, "floor": 0.0, "ceiling": 1.0,
        "dtype": "float32", "started_at": START + dt.timedelta(minutes=minute), "wall_s": 30.0,
        "device_kind": "cpu", "device": "Some CPU", "torch": "2.13.0", "commit": "abc",
        "dirty": False, **columns,
    }  # fmt: skip


@pytest.fixture
def read(tmp_path: Path):
    def write_and_read(*rows: store.Row) -> pd.DataFrame:
        store.write_rows(tmp_path / "rows.parquet", rows)
        return with_reasons(store.read_rows([tmp_path], RUN_COLUMNS).frame)

    return write_and_read


def test_a_run_is_a_line_with_its_time_cells_and_versions(read) -> None:
    second = {"run_id": "second", "method": "recurrence", "torch": "2.14.0"}
    [newest, oldest] = summarise_runs(
        read(
            row(), row(context=128),
            row(2, "other", seed=1), row(2, "other", context=128, seed=1, status="oom"),
            row(9, "third", **second),
        )
    ).to_dict("records")  # fmt: skip
    assert (newest["run_id"], newest["torch"], newest["cells"]) == ("second", "2.14.0", 1)
    assert (oldest["run_id"], oldest["cells"], oldest["rows"]) == ("first", 2, 4)
    # One of the two cells ran out of memory at its longer context.
    assert (oldest["ok"], oldest["oom"], oldest["error"]) == (1, 1, 0)
    assert oldest["started_at"] == START
    assert oldest["ended_at"] == START + dt.timedelta(minutes=2, seconds=30)
    assert oldest["measured_s"] == 60.0
    assert (oldest["commit"], oldest["dirty"], oldest["device"]) == ("abc", False, "Some CPU")


def test_a_run_of_two_settings_tells_both(read) -> None:
    [run] = summarise_runs(read(row(), row(1, "b", seed=1, torch="2.14.0"))).to_dict("records")
    assert run["torch"] == "2.13.0, 2.14.0"


def test_rows_put_aside_are_told_by_run_method_and_reason(read) -> None:
    again = {"run_id": "second", "task_hash": "new"}
    frame = read(
        row(task_hash="old"), row(0, context=128, task_hash="old"), row(5, "b", **again),
        row(1, "c", method="recurrence", method_hash="x", task_hash="new"),
        row(2, "d", method="recurrence", method_hash="y", task_hash="new"),
        row(3, "e", method="recurrence", method_hash="y", task_hash="new"),
    )  # fmt: skip
    aside = put_aside_rows(frame)
    assert aside[["run_id", "method", "reason", "rows"]].to_numpy().tolist() == [
        ["first", "recurrence", "repeated", 1],
        ["first", "recurrence", "method_hash", 1],
        ["first", "vanilla", "task_hash", 2],
    ]
    # Told row by row, and counted by the board: the same.
    counted = {reason: n for reason, n in comparable(frame).put_aside.items() if n}
    assert aside.groupby("reason")["rows"].sum().to_dict() == counted
    assert summarise_runs(frame).set_index("run_id")["put_aside"].to_dict() == {
        "second": 0, "first": 4
    }  # fmt: skip


def test_failures_come_newest_first_and_a_methods_own_limits_last(read) -> None:
    statuses = {"a": "unsupported", "b": "oom", "c": "crashed", "d": "ok"}
    rows = [row(i, cell, status=status) for i, (cell, status) in enumerate(statuses.items())]
    assert failures(read(*rows))["status"].tolist() == ["crashed", "oom", "unsupported"]


def test_no_rows_are_no_runs(tmp_path: Path) -> None:
    empty = with_reasons(store.read_rows([tmp_path], RUN_COLUMNS).frame)
    assert summarise_runs(empty).empty
