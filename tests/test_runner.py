"""Plans to finished cells: resume, failure rows, sealing; a fake executor does the work."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lcbench import runner, store
from lcbench.config import UsageError
from lcbench.isolation import Verdict
from lcbench.registry import load_suite
from lcbench.runner import Event, Folder, Listener, LocalPool, Setting, run_cells
from lcbench.suite import Cell, MethodCard, Selection, TaskCard, plan_cells

SETTING = Setting(
    "run-1",
    {
        "env_id": "e", "device_kind": "cpu", "device": "test", "device_bytes": 1, "cpu": "test",
        "threads": 2, "ram_bytes": 1, "huge_pages": True, "os": "Linux", "python": "3.11",
        "torch": "2.13", "cuda": None,
    },
    {"lcbench_version": "0", "commit": None, "dirty": None},
)  # fmt: skip


def cells_of(*methods: str, error: str | None = None) -> list[Cell]:
    suite = load_suite("smoke")
    cards = [MethodCard(name, "{}", f"hash of {name}", error) for name in methods]
    tasks = [TaskCard("{}", 1, f"hash of {plan.task}") for plan in suite.tasks]
    return plan_cells(
        suite, "smoke", cards, tasks,
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


def measured(cell: Cell) -> list[dict[str, Any]]:
    return [{"status": "ok", "context": context} for context in cell.contexts]


class FakePool:
    """Gives each cell what `verdicts` says, or success; stops with an error after `limit` cells."""

    def __init__(
        self, verdicts: dict[str, Verdict] | None = None, limit: int | None = None,
        stop: type[BaseException] = KeyboardInterrupt,
    ) -> None:  # fmt: skip
        self.verdicts, self.limit, self.stop = verdicts or {}, limit, stop
        self.seen: list[Cell] = []
        self.closed = False

    def run(self, cells: Sequence[Cell], listener: Listener) -> Iterator[tuple[Cell, Verdict]]:
        try:
            for cell in cells:
                if len(self.seen) == self.limit:
                    raise self.stop
                self.seen.append(cell)
                listener(Event("started", cell, None))
                good = Verdict("ok", measured(cell), "measure", None, None, None, 0.5)
                yield cell, self.verdicts.get(cell.label, good)
        finally:
            self.closed = True


def run(cells: list[Cell], folder: Folder, pool: FakePool) -> runner.Tally:
    folder.prepare()
    finished = store.finished_cells(folder.path)
    return run_cells(cells, folder, pool, SETTING, lambda event: None, finished=finished)


def test_a_finished_run_is_one_sealed_file_with_every_row(tmp_path: Path) -> None:
    cells = cells_of("vanilla", "sliding-window")
    folder = Folder(tmp_path, "smoke")
    tally = run(cells, folder, FakePool())
    assert tally.measured == len(cells)
    assert tally.sealed is not None
    assert not list(folder.cells.glob("*.parquet"))
    frame = store.read_rows([tally.sealed]).frame
    assert len(frame) == sum(len(cell.contexts) for cell in cells)
    assert set(frame["cell_id"]) == {cell.cell_id for cell in cells}


def test_an_interrupted_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = Folder(tmp_path, "smoke")
    first = FakePool(limit=2)
    with pytest.raises(KeyboardInterrupt):
        run(cells, folder, first)
    assert first.closed
    assert len(list(folder.cells.glob("*.parquet"))) == 2
    second = FakePool()
    tally = run(cells, folder, second)
    assert second.seen == cells[2:]
    assert tally.kept == 2
    frame = store.read_rows([folder.path]).frame
    assert not frame.duplicated(["cell_id", "context"]).any()
    assert set(frame["cell_id"]) == {cell.cell_id for cell in cells}


def test_a_finished_plan_is_not_measured_again(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = Folder(tmp_path, "smoke")
    sealed = run(cells, folder, FakePool()).sealed
    again = FakePool()
    tally = run(cells, folder, again)
    assert again.seen == []
    assert tally.sealed is None
    assert list(folder.path.glob("*.parquet")) == [sealed]


def test_a_torn_cell_file_is_measured_again(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = Folder(tmp_path, "smoke")
    with pytest.raises(KeyboardInterrupt):
        run(cells, folder, FakePool(limit=2))
    torn = folder.cells / f"{cells[0].cell_id}.parquet"
    torn.write_bytes(torn.read_bytes()[:100])
    pool = FakePool()
    run(cells, folder, pool)
    assert pool.seen[0] == cells[0]
    assert len(store.read_rows([folder.path]).problems) == 0


def test_a_failure_gives_a_row_at_each_context_and_a_log(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    bad = Verdict("crashed", None, "train", "killed by SIGABRT", "trace", "SIGABRT", 1.5)
    folder = Folder(tmp_path, "smoke")
    tally = run(cells, folder, FakePool({cells[0].label: bad}))
    assert tally.statuses["crashed"] == 1
    frame = store.read_rows([folder.path]).frame
    failed = frame[frame["status"] == "crashed"]
    assert list(failed["context"]) == list(cells[0].contexts)
    assert set(failed["exit_signal"]) == {"SIGABRT"}
    assert set(failed["stage"]) == {"train"}
    assert (folder.logs / f"{cells[0].cell_id}.log").read_text() == "trace"


def test_a_full_disk_keeps_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = cells_of("vanilla")
    folder = Folder(tmp_path, "smoke")
    written: list[Path] = []
    real = store.write_rows

    def write(path: Path, rows: list[store.Row]) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        real(path, rows)

    monkeypatch.setattr(store, "write_rows", write)
    pool = FakePool()
    with pytest.raises(OSError, match="No space left"):
        run(cells, folder, pool)
    assert pool.closed
    monkeypatch.undo()
    rest = FakePool()
    run(cells, folder, rest)
    assert rest.seen == cells[2:]


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UsageError, match=r"file.*cannot be written.*--results"):
        Folder(blocked, "smoke").prepare()


def test_a_method_that_does_not_load_is_a_failure_without_a_process(tmp_path: Path) -> None:
    cells = cells_of("broken", error="SyntaxError: invalid syntax (/home/me/broken.py, line 3)")
    verdicts = [verdict for _, verdict in LocalPool(1).run(cells, lambda event: None)]
    assert {verdict.status for verdict in verdicts} == {"error"}
    assert {verdict.stage for verdict in verdicts} == {"load"}
    assert "/home" not in (verdicts[0].error or "")


def test_identity_comes_from_the_plan_not_from_the_process(tmp_path: Path) -> None:
    (cell, *_) = cells_of("vanilla")
    boast = [{"status": "ok", "context": 32, "method": "better", "wall_s": 0.0, "device": "fast"}]
    (row,) = runner.compose_rows(cell, Verdict("ok", boast, None, None, None, None, 1.0), SETTING)
    for name in ("method", "cell_id", "method_hash", "seed", "device_kind"):
        assert row[name] == {**dataclasses.asdict(cell), "cell_id": cell.cell_id}[name]
    assert row["wall_s"] == 1.0
    assert row["device"] == "test"


def test_two_runs_do_not_measure_into_one_folder_at_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "smoke")
    folder.prepare()
    with (
        folder.locked(),
        pytest.raises(UsageError, match="another run is writing"),
        Folder(tmp_path, "smoke").locked(),
    ):
        pass
    with folder.locked():
        pass


def test_a_cell_file_that_cannot_be_read_is_not_thrown_away(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = Folder(tmp_path, "smoke")
    with pytest.raises(KeyboardInterrupt):
        run(cells, folder, FakePool(limit=3))
    torn = folder.cells / f"{cells[0].cell_id}.parquet"
    torn.write_bytes(b"PAR1")
    folder.seal(cells)
    assert list(folder.cells.glob("*.parquet")) == [torn]
