import datetime as dt
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcbench import store
from lcbench.store import SCHEMA, Row, latest, read_rows, read_table, seal
from lcbench.store import write_rows as write

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def row(**columns: object) -> Row:
    return {
        "run_id": "run",
        "cell_id": "cell",
        "kind": "prefill",
        "suite": "quick",
        "suite_version": 1,
        "method": "vanilla",
        "config": "{}",
        "context": 512,
        "status": "ok",
        "started_at": START,
        "device_kind": "cpu",
        **columns,
    }


def quality_row(**columns: object) -> Row:
    task: Row = {"task": "mqar", "task_version": 1, "task_config": "{}"}
    return row(kind="quality", train_context=64, seed=0, **task, **columns)


def test_what_is_written_is_read_back(tmp_path: Path):
    written = quality_row(
        score=0.5,
        score_by_distance=[None, 0.25, 1.0],
        count_by_distance=np.array([0, 4, 8]),
        curve_steps=[50, 100],
        curve_loss_nats=[2.5, 0.5],
        curve_s=[1.0, 2.25],
        correct_bits=b"\x05",
        num_examples=np.int64(12),
        dirty=True,
    )
    write(tmp_path / "a.parquet", [written])
    frame, problems = read_rows([tmp_path])
    assert problems == []
    assert list(frame.columns) == SCHEMA.names
    got = frame.iloc[0]
    assert (got["score"], got["num_examples"], got["correct_bits"]) == (0.5, 12, b"\x05")
    assert got["started_at"] == START
    assert bool(got["dirty"]) is True
    np.testing.assert_array_equal(got["score_by_distance"], [np.nan, 0.25, 1.0])
    assert got["curve_steps"].tolist() == [50, 100]
    assert (got["curve_loss_nats"].tolist(), got["curve_s"].tolist()) == ([2.5, 0.5], [1.0, 2.25])
    assert got["schema_version"] == store.SCHEMA_VERSION


def test_a_column_not_given_is_null_and_integers_stay_integers(tmp_path: Path):
    write(tmp_path / "a.parquet", [row(peak_bytes=2**53 + 1), row(cell_id="b")])
    frame = read_rows([tmp_path]).frame
    assert frame["peak_bytes"].iloc[0] == 2**53 + 1
    assert frame["peak_bytes"].isna().tolist() == [False, True]
    assert frame["score"].isna().all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"scor": 1.0}, r"unknown column 'scor'; did you mean 'score'"),
        ({"context": "512"}, r"'context' takes int64, got '512'"),
        ({"context": 512.5}, r"'context' takes int64, got 512.5"),
        ({"batch": True}, r"'batch' takes int64, got True"),
        ({"flops": 2**70}, r"'flops' takes int64"),
        ({"score": True}, r"'score' takes double, got True"),
        ({"error": b"bytes"}, r"'error' takes string"),
        ({"dirty": 1}, r"'dirty' takes bool, got 1"),
        ({"timings_ns": [1, 2.5]}, r"'timings_ns' takes list"),
        ({"timings_ns": "12"}, r"'timings_ns' takes list"),
        ({"started_at": dt.datetime(2026, 1, 1)}, r"'started_at' takes timestamp"),  # noqa: DTZ001
        ({"method": None}, r"'method' is null"),
        ({"kind": "speed"}, r"'kind' is one of quality, .* got 'speed'"),
        ({"status": "failed"}, r"'status' is one of ok, .* got 'failed'"),
        ({"kind": "quality"}, r"'task' is null; a quality row must have it"),
        ({"schema_version": 2}, r"schema_version is 1, got 2"),
    ],
)
def test_a_row_outside_the_schema_is_refused_by_name(tmp_path: Path, columns: Row, message: str):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.parquet", [row(**columns)])
    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no rows"):
        write(tmp_path / "a.parquet", [])


def test_the_same_rows_give_the_same_bytes(tmp_path: Path):
    rows = [row(timings_ns=[3, 1, 2], step_ms=1.5), row(cell_id="other")]
    write(tmp_path / "a.parquet", rows)
    write(tmp_path / "b.parquet", rows)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "a.parquet"
    write(target, [row()])
    before = target.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(target, [row(context=1024)])
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):  # noqa: PT011
        write(tmp_path / "file" / "a.parquet", [row()])


def test_sealing_names_by_content_whatever_the_order(tmp_path: Path):
    rows = [row(cell_id=f"c{i}", context=2**i) for i in range(5)]
    day = dt.date(2026, 1, 2)
    path = seal(rows, tmp_path, day)
    assert path.name.startswith("2026-01-02-")
    assert len(path.stem.removeprefix("2026-01-02-")) == 12
    assert seal(rows[::-1], tmp_path, day) == path
    assert seal(read_table([path]).table, tmp_path, day) == path
    assert list(tmp_path.iterdir()) == [path]
    assert seal(rows[:4], tmp_path, day) != path


def test_sealing_again_mends_a_damaged_file(tmp_path: Path):
    path = seal([row()], tmp_path, dt.date(2026, 1, 2))
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    seal([row()], tmp_path, dt.date(2026, 1, 2))
    assert path.read_bytes() == whole


def test_the_digest_is_of_what_the_rows_say_not_of_how_they_are_written(tmp_path: Path):
    rows = [row(cell_id="a", timings_ns=[3, 1], correct_bits=b"\x01"), row(cell_id="b", score=0.5)]
    table = store.to_table(rows)
    pq.write_table(table, tmp_path / "other.parquet", compression="gzip", version="1.0")
    again = read_table([tmp_path / "other.parquet"]).table
    assert store.content_digest(again) == store.content_digest(table)
    swapped = store.to_table(rows[::-1])
    assert store.content_digest(swapped) == store.content_digest(table)
    changed = store.to_table([rows[0], {**rows[1], "score": 0.25}])
    assert store.content_digest(changed) != store.content_digest(table)


def test_an_older_file_reads_as_null_where_it_lacks_a_column(tmp_path: Path):
    table = store.to_table([row(score=0.5, peak_bytes=7)])
    pq.write_table(table.drop_columns(["peak_bytes", "asked_bytes"]), tmp_path / "old.parquet")
    write(tmp_path / "new.parquet", [row(cell_id="other", peak_bytes=8)])
    frame, problems = read_rows([tmp_path])
    assert problems == []
    assert list(frame.columns) == SCHEMA.names
    old = frame.set_index("cell_id").loc["cell"]
    assert (old["score"], old["method"]) == (0.5, "vanilla")
    assert pd.isna(old["peak_bytes"])
    assert read_rows([tmp_path / "old.parquet"], ["peak_bytes"]).frame["peak_bytes"].isna().all()


def test_a_file_from_before_learning_curves_reads_as_null_there(tmp_path: Path):
    curve = ["curve_steps", "curve_loss_nats", "curve_s"]
    table = store.to_table([quality_row(score=0.5)])
    pq.write_table(table.drop_columns(curve), tmp_path / "old.parquet")
    old = read_table([tmp_path]).table
    assert old.schema == SCHEMA
    assert all(old[name].null_count == 1 for name in curve)
    # The digest in its name stays right.
    assert store.content_digest(old) == store.content_digest(table)


def test_a_file_sealed_while_its_folder_is_read_is_found_where_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "cells" / "a.parquet", [row()])
    real = store._parquet_files
    seen: list[int] = []

    def stale(paths):
        files = list(real(paths))
        if not seen:
            seal([row()], tmp_path, dt.date(2026, 1, 1))
            (tmp_path / "cells" / "a.parquet").unlink()
        seen.append(1)
        return files

    monkeypatch.setattr(store, "_parquet_files", stale)
    frame, problems = read_rows([tmp_path])
    assert (len(frame), problems) == (1, [])


def test_a_partial_table_is_not_sealed(tmp_path: Path):
    write(tmp_path / "a.parquet", [row()])
    table = read_table([tmp_path], ["suite"]).table
    with pytest.raises(ValueError, match="columns of SCHEMA"):
        seal(table, tmp_path, dt.date(2026, 1, 2))


def other_columns(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def other_version(path: Path) -> None:
    pq.write_table(pa.table({"schema_version": [7], "new": ["x"]}), path)


def lost_column(path: Path) -> None:
    pq.write_table(store.to_table([row()]).drop_columns(["method"]), path)


def added_column(path: Path) -> None:
    pq.write_table(store.to_table([row()]).append_column("new", pa.array([1.0])), path)


def other_type(path: Path) -> None:
    frame = store.to_table([row()])
    at = SCHEMA.get_field_index("score")
    pq.write_table(frame.set_column(at, "score", pa.array(["high"])), path)


def null_method(path: Path) -> None:
    table = store.to_table([row()])
    at = SCHEMA.get_field_index("method")
    pq.write_table(table.set_column(at, "method", pa.nulls(1, pa.string())), path)


def truncated(path: Path) -> None:
    write(path, [row()])
    path.write_bytes(path.read_bytes()[:-20])


def flipped_bit(path: Path) -> None:
    write(path, [row(config='{"window":12345678}')])
    data = bytearray(path.read_bytes())
    data[data.index(b"12345678")] ^= 1
    path.write_bytes(bytes(data))


def repeated_column(path: Path) -> None:
    table = store.to_table([row()])
    pq.write_table(table.append_column("score", pa.array([1.0])), path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (other_columns, "no schema_version"),
        (other_version, r"schema_version \[7\]; this lcbench reads 1"),
        (lost_column, "lacks columns every row must have: method"),
        (added_column, "columns this lcbench does not know: new; update lcbench"),
        (other_type, "columns differ from the schema's in type: score"),
        (null_method, "'method' has nulls"),
        (repeated_column, "names repeat"),
        (truncated, "."),
        (flipped_bit, "."),
        (lambda path: path.write_bytes(b""), "."),
        (lambda path: path.write_text("not parquet at all, but long enough"), "."),
        (lambda path: path.symlink_to("nowhere.parquet"), "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_and_the_rest_is_read(tmp_path, spoil, reason):
    write(tmp_path / "good.parquet", [row()])
    spoilt = tmp_path / "deep" / "spoilt.parquet"
    spoilt.parent.mkdir()
    spoil(spoilt)
    frame, problems = read_rows([tmp_path])
    assert len(frame) == 1
    [(path, text)] = problems
    assert path == spoilt
    assert pd.Series([text]).str.contains(reason).all()
    assert "\n" not in text


def test_every_truncation_is_told(tmp_path: Path):
    path = tmp_path / "a.parquet"
    write(path, [row()])
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        frame, problems = read_rows([tmp_path])
        assert len(frame) == 0
        assert len(problems) == 1


def test_unfinished_files_and_absent_folders_are_not_read(tmp_path: Path):
    (tmp_path / ".a.parquet.0.tmp").write_bytes(b"half")
    (tmp_path / ".hidden.parquet").write_bytes(b"half")
    frame, problems = read_rows([tmp_path, tmp_path / "absent"])
    assert (len(frame), problems) == (0, [])
    assert list(frame.columns) == SCHEMA.names


def test_a_named_file_that_is_absent_is_told(tmp_path: Path):
    assert read_rows([tmp_path / "a.parquet"]).problems == [
        (tmp_path / "a.parquet", "No such file or directory")
    ]


def test_a_row_in_a_cell_file_and_in_a_sealed_one_is_one_row(tmp_path: Path):
    rows = [row(context=512), row(context=1024), row(run_id="second")]
    write(tmp_path / "cells" / "cell.parquet", rows)
    seal(rows, tmp_path, dt.date(2026, 1, 1))
    assert len(read_rows([tmp_path]).frame) == 3
    assert read_rows([tmp_path], ["score"]).frame.shape == (3, 1)


def test_an_unknown_column_to_read_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="did you mean 'score'"):
        read_rows([tmp_path], ["scores"])


def test_latest_keeps_the_newest_of_each_cell_and_the_order():
    times = pd.to_datetime(["2026-01-02", "2026-01-01", "2026-01-03", "2026-01-02"], utc=True)
    frame = pd.DataFrame(
        {
            "cell_id": ["a", "b", "b", "a"],
            "kind": "quality",
            "context": 64,
            "started_at": times,
            "n": range(4),
        }
    )
    assert latest(frame)["n"].tolist() == [0, 2]
    assert latest(frame.iloc[:0]).empty


def test_files_hold_nothing_but_columns(tmp_path: Path):
    write(tmp_path / "a.parquet", [row()])
    metadata = pq.read_metadata(tmp_path / "a.parquet").metadata
    assert set(metadata or {}) <= {b"ARROW:schema"}
    assert SCHEMA.metadata is None


def test_torch_is_not_imported():
    program = "import sys, lcbench.store, lcbench.ranking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
