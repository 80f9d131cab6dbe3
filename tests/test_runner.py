"""Plans to finished cells: resume, failure rows, sealing; a fake executor does the work."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from lcbench import runner, store
from lcbench.config import UsageError
from lcbench.isolation import Verdict
from lcbench.journal import Folder, Visit
from lcbench.pool import News
from lcbench.registry import load_suite
from lcbench.runner import Event, Setting, run_cells
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
        self.under_way: list[Cell] = []
        self.closed = False

    def obstacle(self, cell: Cell) -> str | None:
        return "one at a time" if self.under_way else None

    def submit(self, cell: Cell) -> None:
        if len(self.seen) == self.limit:
            raise self.stop
        self.seen.append(cell)
        self.under_way.append(cell)

    def collect(self, timeout_s: float) -> list[News]:
        done, self.under_way = self.under_way, []
        good = {c: Verdict("ok", measured(c), "measure", None, None, None, 0.5) for c in done}
        return [News(c, "verdict", self.verdicts.get(c.label, good[c])) for c in done]

    def close(self) -> None:
        self.closed = True


def folder_in(path: Path, env_id: str = "e") -> Folder:
    return Folder(path, "smoke", env_id)


def run(
    cells: list[Cell], folder: Folder, pool: FakePool, *, run_id: str = "run-1",
    events: list[Event] | None = None,
) -> runner.Tally:  # fmt: skip
    with Visit(folder, cells, run_id, "lcbench run") as visit:
        known = folder.finished()
        finished = {c.cell_id: known[stem] for c in cells if (stem := folder.stem(c)) in known}
        environment = {**SETTING.environment, "env_id": folder.env_id}
        setting = SETTING._replace(run_id=run_id, environment=environment)
        listen = (lambda event: None) if events is None else events.append
        return run_cells(cells, visit, pool, setting, listen, finished=finished)


def test_a_finished_run_is_one_sealed_file_with_every_row(tmp_path: Path) -> None:
    cells = cells_of("vanilla", "sliding-window")
    folder = folder_in(tmp_path)
    tally = run(cells, folder, FakePool())
    assert tally.measured == len(cells)
    assert tally.sealed is not None
    assert not list(folder.cells.glob("*.parquet"))
    frame = store.read_rows([tally.sealed]).frame
    assert len(frame) == sum(len(cell.contexts) for cell in cells)
    assert set(frame["cell_id"]) == {cell.cell_id for cell in cells}


def test_an_interrupted_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = folder_in(tmp_path)
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
    folder = folder_in(tmp_path)
    sealed = run(cells, folder, FakePool()).sealed
    again = FakePool()
    tally = run(cells, folder, again)
    assert again.seen == []
    assert tally.sealed is None
    assert list(folder.path.glob("*.parquet")) == [sealed]


def test_a_torn_cell_file_is_measured_again(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = folder_in(tmp_path)
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
    folder = folder_in(tmp_path)
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
    folder = folder_in(tmp_path)
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
        folder_in(blocked).prepare()


def test_a_method_that_does_not_load_is_a_failure_without_a_process(tmp_path: Path) -> None:
    cells = cells_of("broken", error="SyntaxError: invalid syntax (/home/me/broken.py, line 3)")
    pool = FakePool()
    run(cells, folder_in(tmp_path), pool)
    assert pool.seen == []
    frame = store.read_rows([tmp_path]).frame
    assert set(frame["status"]) == {"error"}
    assert set(frame["stage"]) == {"load"}
    assert not frame["error"].str.contains("/home").any()


def test_identity_comes_from_the_plan_not_from_the_process(tmp_path: Path) -> None:
    (cell, *_) = cells_of("vanilla")
    boast = [{"status": "ok", "context": 32, "method": "better", "wall_s": 0.0, "device": "fast"}]
    (row,) = runner.compose_rows(cell, Verdict("ok", boast, None, None, None, None, 1.0), SETTING)
    for name in ("method", "cell_id", "method_hash", "seed", "device_kind"):
        assert row[name] == {**dataclasses.asdict(cell), "cell_id": cell.cell_id}[name]
    assert row["wall_s"] == 1.0
    assert row["device"] == "test"


def test_a_cell_file_that_cannot_be_read_is_not_thrown_away(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = folder_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(cells, folder, FakePool(limit=3))
    torn = folder.cell_file(cells[0])
    torn.write_bytes(b"PAR1")
    folder.seal(folder.stem(cell) for cell in cells)
    assert list(folder.cells.glob("*.parquet")) == [torn]


def oom(asked_bytes: int | None = None) -> Verdict:
    error = "OutOfMemoryError: CUDA out of memory."
    return Verdict("oom", None, "measure", error, None, None, 0.1, asked_bytes)


def ladder_cells(*contexts: int) -> list[Cell]:
    suite = load_suite("smoke")
    suite = dataclasses.replace(
        suite, tasks=(), cost=dataclasses.replace(suite.cost, contexts=contexts)
    )
    cards = [MethodCard(name, "{}", f"hash of {name}") for name in ("vanilla", "recurrence")]
    return plan_cells(
        suite, "smoke", cards, [],
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


def test_longer_contexts_are_not_tried_where_a_shorter_ran_out_of_memory(tmp_path: Path) -> None:
    cells = ladder_cells(4096, 8192, 16384, 32768)
    pool = FakePool({"vanilla · prefill at 8,192": oom(asked_bytes=5 * 2**30)})
    run(cells, folder_in(tmp_path), pool)
    frame = store.read_rows([tmp_path]).frame
    rows = frame[(frame["method"] == "vanilla") & (frame["kind"] == "prefill")]
    rows = rows.set_index("context")
    assert rows["status"].to_dict() == {4096: "ok", 8192: "oom", 16384: "oom", 32768: "oom"}
    assert rows.loc[8192, "asked_bytes"] == 5 * 2**30
    for context in (16384, 32768):
        assert rows.loc[context, "error"] == "not tried: out of memory at 8,192"
    tried = {cell.label for cell in pool.seen}
    assert "vanilla · prefill at 16,384" not in tried
    assert "vanilla · decode at 32,768" in tried
    assert "recurrence · prefill at 32,768" in tried
    assert len(pool.seen) == len(cells) - 2


def test_a_plan_that_grows_does_not_try_beyond_what_ran_out_of_memory_before(
    tmp_path: Path,
) -> None:
    run(ladder_cells(4096, 8192), folder_in(tmp_path), FakePool({
        "vanilla · prefill at 8,192": oom()}))  # fmt: skip
    more = FakePool()
    run(ladder_cells(4096, 8192, 16384), folder_in(tmp_path), more, run_id="run-2")
    assert len(more.seen) == 5
    assert "vanilla · prefill at 16,384" not in {cell.label for cell in more.seen}


def test_running_out_of_time_is_no_reason_to_skip(tmp_path: Path) -> None:
    cells = ladder_cells(4096, 8192)
    late = Verdict("timeout", None, "measure", "stopped after 1 s", None, "SIGKILL", 1.0)
    pool = FakePool({"vanilla · prefill at 4,096": late})
    run(cells, folder_in(tmp_path), pool)
    assert pool.seen == cells


def test_what_a_cell_cost_elsewhere_is_measured_here_too_and_scores_are_kept(
    tmp_path: Path,
) -> None:
    cells = cells_of("vanilla")
    run(cells, folder_in(tmp_path, "there"), FakePool())
    here = FakePool()
    tally = run(cells, folder_in(tmp_path, "here"), here, run_id="run-2")
    assert here.seen == [cell for cell in cells if cell.kind != "quality"]
    assert tally.kept == len(cells) - len(here.seen)


def test_cells_of_another_run_are_left_to_it_and_counted(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = folder_in(tmp_path)
    with Visit(folder, cells, "other", "lcbench run --method all") as other:
        assert other.claim(cells[0]) == "taken"

        class Meanwhile(FakePool):
            def collect(self, timeout_s: float) -> list[News]:
                if len(self.seen) == 2:  # the other finishes one cell while this one runs
                    rows = runner.compose_rows(
                        cells[0], Verdict("ok", measured(cells[0]), None, None, None, None, 1.0),
                        SETTING._replace(run_id="other"),
                    )  # fmt: skip
                    other.keep(cells[0], rows, None)
                return super().collect(timeout_s)

        pool = Meanwhile()
        events: list[Event] = []
        tally = run(cells, folder, pool, events=events)
        assert pool.seen == cells[1:]
        assert (tally.shared, tally.measured) == (1, len(cells) - 1)
        assert tally.left_to_another
        assert tally.sealed is None
        assert [e.cell for e in events if e.topic == "shared"] == [cells[0]]
        sealing = other.seal()
    assert sealing.path is not None
    frame = store.read_rows([sealing.path]).frame
    assert set(frame["cell_id"]) == {cell.cell_id for cell in cells}
    assert not frame.duplicated(["cell_id", "context"]).any()


def test_a_cell_that_another_run_gave_up_is_taken_over(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = folder_in(tmp_path)
    with Visit(folder, cells, "other", "lcbench run") as other:
        assert other.claim(cells[0]) == "taken"

        class Meanwhile(FakePool):
            def collect(self, timeout_s: float) -> list[News]:
                if len(self.seen) == 2:
                    other.__exit__()
                return super().collect(timeout_s)

        pool = Meanwhile()
        tally = run(cells, folder, pool)
    assert pool.seen == [*cells[1:], cells[0]]
    assert tally.measured == len(cells)
    assert tally.sealed is not None


def test_rows_of_removed_cells_are_missed(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    folder = folder_in(tmp_path)

    class Meanwhile(FakePool):
        def collect(self, timeout_s: float) -> list[News]:
            if len(self.seen) == 3 and self.under_way:
                shutil.rmtree(tmp_path / "smoke")
            return super().collect(timeout_s)

    tally = run(cells, folder, Meanwhile())
    assert tally.missing == 2
    again = FakePool()
    assert run(cells, folder, again, run_id="run-2").missing == 0
    assert again.seen == cells[:2]
    frame = store.read_rows([tmp_path]).frame
    assert set(frame["cell_id"]) == {cell.cell_id for cell in cells}
