"""Several folders of rows into one sealed file a suite."""

import datetime as dt
from pathlib import Path

import pytest

from lcbench import store
from lcbench.config import UsageError
from lcbench.journal import Folder, Visit
from lcbench.merging import merge
from lcbench.store import Row

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.date(2026, 1, 1)


def row(cell_id: str, **columns: object) -> Row:
    return {
        "run_id": "one", "cell_id": cell_id, "kind": "prefill", "suite": "quick",
        "suite_version": 1, "method": "vanilla", "config": "{}", "context": 512, "status": "ok",
        "started_at": START, "device_kind": "cpu", "env_id": "here", **columns,
    }  # fmt: skip


def test_sealed_files_and_journals_become_one_file_a_suite(tmp_path: Path) -> None:
    store.seal([row("a"), row("b")], tmp_path / "shard-1" / "quick", DAY)
    store.write_rows(tmp_path / "shard-2" / "quick" / "cells" / "c.parquet", [row("c")])
    store.seal([row("d", suite="standard")], tmp_path / "shard-2" / "standard", DAY)
    merged = merge([tmp_path / "shard-1", tmp_path / "shard-2"], tmp_path / "all")
    assert [(m.suite, m.cells, m.rows) for m in merged] == [("quick", 3, 3), ("standard", 1, 1)]
    assert merged[0].path.name.endswith(
        f"{store.content_digest(store.to_table([row(c) for c in 'abc']))}.parquet"
    )
    read = store.read_rows([tmp_path / "all"])
    assert read.problems == []
    assert sorted(read.frame["cell_id"]) == ["a", "b", "c", "d"]
    assert len(list((tmp_path / "all").rglob("*.parquet"))) == 2


def test_the_same_row_in_two_folders_is_one_row(tmp_path: Path) -> None:
    store.seal([row("a"), row("b")], tmp_path / "1" / "quick", DAY)
    store.seal([row("b"), row("c")], tmp_path / "2" / "quick", DAY)
    (merged,) = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert merged.rows == 3


def test_a_cell_measured_twice_is_refused_by_name_or_settled_by_time(tmp_path: Path) -> None:
    store.seal([row("a"), row("b", step_ms=1.0)], tmp_path / "1" / "quick", DAY)
    later = row("b", run_id="two", started_at=START + dt.timedelta(hours=1), step_ms=2.0)
    store.seal([later], tmp_path / "2" / "quick", DAY)
    sources = [tmp_path / "2", tmp_path / "1"]
    with pytest.raises(
        UsageError, match=r"by runs one, two: vanilla · prefill at 512\. .*--newest"
    ):
        merge(sources, tmp_path / "all")
    assert not (tmp_path / "all").exists()
    (merged,) = merge(sources, tmp_path / "all", newest=True)
    frame = store.read_rows([merged.path]).frame.set_index("cell_id")
    assert frame["step_ms"].to_dict() == {"a": pytest.approx(float("nan"), nan_ok=True), "b": 2.0}


def test_what_a_cell_cost_on_two_machines_is_two_measurements(tmp_path: Path) -> None:
    store.seal([row("a")], tmp_path / "1" / "quick", DAY)
    store.seal([row("a", run_id="two", env_id="there")], tmp_path / "2" / "quick", DAY)
    (merged,) = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert (merged.cells, merged.rows) == (1, 2)


def test_an_edited_copy_is_refused(tmp_path: Path) -> None:
    store.seal([row("a", step_ms=2.0)], tmp_path / "1" / "quick", DAY)
    store.seal([row("a", step_ms=1.0)], tmp_path / "2" / "quick", DAY)
    with pytest.raises(UsageError, match="rows of run one say different things"):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all", newest=True)


def test_what_cannot_be_merged_is_named(tmp_path: Path) -> None:
    store.seal([row("a")], tmp_path / "1" / "quick", DAY)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no results in .*empty"):
        merge([tmp_path / "1", tmp_path / "empty"], tmp_path / "all")
    with pytest.raises(UsageError, match="whose rows would be there twice"):
        merge([tmp_path / "1"], tmp_path / "1" / "all")
    with (
        Visit(Folder(tmp_path / "1", "quick", "here"), [], "run", "lcbench run"),
        pytest.raises(UsageError, match="a run is measuring in"),
    ):
        merge([tmp_path / "1"], tmp_path / "all")
    (tmp_path / "1" / "quick" / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"cannot be read: 1, the first .*torn\.parquet"):
        merge([tmp_path / "1"], tmp_path / "all")
