"""Folders of this machine and URLs, for those who read and write rows."""

import datetime as dt
import uuid
from pathlib import Path

import pytest
from pyarrow import fs

from lcbench import store
from lcbench.config import UsageError
from lcbench.journal import Folder, Visit
from lcbench.places import RemotePath, read_place

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def row(cell_id: str) -> store.Row:
    return {
        "run_id": "one", "cell_id": cell_id, "kind": "prefill", "suite": "quick",
        "suite_version": 1, "method": "vanilla", "config": "{}", "context": 512, "status": "ok",
        "started_at": START, "device_kind": "cpu",
    }  # fmt: skip


def in_memory() -> str:
    return f"mock:///{uuid.uuid4().hex}"


def test_paths_and_files_are_of_this_machine(tmp_path: Path) -> None:
    assert read_place("results/local") == Path("results/local")
    assert read_place(f"file://{tmp_path}/my%20results") == tmp_path / "my results"
    assert read_place("C:/results") == Path("C:/results")


def test_a_url_nobody_opens_is_refused() -> None:
    with pytest.raises(UsageError, match="gopher://x cannot be opened"):
        read_place("gopher://x")


def test_rows_are_sealed_and_read_at_a_url() -> None:
    place = read_place(in_memory())
    assert isinstance(place, RemotePath)
    assert not place.exists()
    sealed = store.seal([row("a"), row("b")], place / "quick", dt.date(2026, 1, 2))
    assert str(sealed).startswith(f"{place}/quick/2026-01-02-")
    assert (sealed.exists(), sealed.suffix) == (True, ".parquet")
    table, problems = store.read_table([place])
    assert (sorted(table["cell_id"].to_pylist()), problems) == (["a", "b"], [])
    assert store.seal([row("b"), row("a")], place / "quick", dt.date(2026, 1, 2)) == sealed
    assert len(list(place.rglob("*"))) == 1


def test_a_damaged_file_at_a_url_is_told_and_sealing_mends_it(tmp_path: Path) -> None:
    place = RemotePath(
        fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "out", "test://out"
    )
    sealed = store.seal([row("a")], place, dt.date(2026, 1, 2))
    on_disk = tmp_path / "out" / sealed.name
    on_disk.write_bytes(on_disk.read_bytes()[:50])
    [(where, _)] = store.read_table([place]).problems
    assert where == sealed
    store.seal([row("a")], place, dt.date(2026, 1, 2))
    assert store.read_table([place]).problems == []


def test_a_half_written_file_at_a_url_is_not_read(tmp_path: Path) -> None:
    store.seal([row("a")], tmp_path, dt.date(2026, 1, 2))
    place = RemotePath(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "", "test://")
    (tmp_path / ".b.parquet.0.tmp").write_bytes(b"half")
    (tmp_path / ".b.parquet").write_bytes(b"half")
    table, problems = store.read_table([place])
    assert (len(table), problems) == (1, [])


def test_the_journal_of_a_run_to_a_url_stays_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lcbench.paths.checkout", lambda: None)
    place = read_place(in_memory())
    folder = Folder(place, "quick", "e")
    assert folder.path.is_relative_to(tmp_path / "results" / "local" / "staging")
    with Visit(folder, [], "run", "lcbench run"):
        store.write_rows(folder.cells / "a.parquet", [row("a")])
        assert folder.finished().keys() == {"a-unknown"}
        sealed = folder.seal(["a"])
    assert isinstance(sealed, RemotePath)
    assert folder.finished().keys() == {"a-unknown"}
    assert not list(folder.cells.glob("*.parquet"))
