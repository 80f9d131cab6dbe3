"""A suite's results on disk: who may work on what, what is finished, what is swept up."""

import datetime as dt
import json
from pathlib import Path

import pytest

from lcbench import store
from lcbench.journal import Folder, Visit, read_finished, read_plans
from lcbench.locks import is_locked
from lcbench.registry import load_suite
from lcbench.store import Row
from lcbench.suite import Cell, MethodCard, Selection, TaskCard, plan_cells

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def cells_of(*methods: str) -> list[Cell]:
    suite = load_suite("smoke")
    tasks = [TaskCard("{}", 1, plan.task) for plan in suite.tasks]
    return plan_cells(
        suite, "smoke", [MethodCard(name, "{}", name) for name in methods], tasks,
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


def row(cell_id: str, **columns: object) -> Row:
    return {
        "run_id": "one", "cell_id": cell_id, "kind": "prefill", "suite": "smoke",
        "suite_version": 1, "method": "vanilla", "config": "{}", "context": 512, "status": "ok",
        "started_at": START, "device_kind": "cpu", "env_id": "here", **columns,
    }  # fmt: skip


def rows_of(cell: Cell, run_id: str = "run") -> list[Row]:
    task: Row = {
        "task": "t",
        "task_version": 1,
        "task_config": "{}",
        "train_context": 32,
        "seed": 0,
    }
    extra = task if cell.kind == "quality" else {}
    return [
        row(cell.cell_id, kind=cell.kind, context=context, run_id=run_id, **extra)
        for context in cell.contexts
    ]


def visit_to(base: Path, cells: list[Cell], run_id: str, command: str = "lcbench run") -> Visit:
    return Visit(Folder(base, "smoke", "here"), cells, run_id, command)


def test_finished_cells_tell_the_newest_outcome_of_each_on_each_machine(tmp_path: Path) -> None:
    later = START + dt.timedelta(hours=1)
    store.seal([row("a", run_id="before", status="timeout")], tmp_path / "smoke", START.date())
    cells = tmp_path / "smoke" / "cells"
    store.write_rows(cells / "a.parquet", [row("a", started_at=later)])
    oom = row("b", context=1024, status="oom", error="out of memory")
    store.write_rows(cells / "b.parquet", [row("b"), oom, row("b", run_id="two", env_id="there")])
    (cells / "c.parquet").write_bytes(b"half")
    found = {stem: tuple(outcome) for stem, outcome in read_finished([tmp_path]).items()}
    assert found == {
        "a-here": ("ok", None),
        "b-here": ("oom", "out of memory"),
        "b-there": ("ok", None),
    }
    assert read_finished([tmp_path / "absent"]) == {}


def test_a_cell_is_claimed_by_one_run_until_it_is_kept_or_dropped(tmp_path: Path) -> None:
    first, second, third = cells_of("vanilla")[:3]
    with (
        visit_to(tmp_path, [first, second, third], "a") as one,
        visit_to(tmp_path, [first, second, third], "b") as two,
    ):
        assert [plan.run_id for plan in two.others] == ["a"]
        assert one.claim(first) == "taken"
        assert two.claim(first) == "elsewhere"
        note = json.loads((one.folder.claims / one.folder.stem(first)).read_text())
        assert note["label"] == first.label
        one.keep(first, rows_of(first), None)
        assert two.claim(first) == "finished"
        assert one.claim(second) == "taken"
        one.drop(second)
        assert two.claim(second) == "taken"
        assert one.seal().left_to_another
        assert two.seal() == (None, False, 2), "two cells of the plan have no rows"


def test_a_row_that_was_there_before_does_not_count_as_measured_meanwhile(tmp_path: Path) -> None:
    (cell, *_) = cells_of("vanilla")
    folder = Folder(tmp_path, "smoke", "here")
    folder.keep(cell, rows_of(cell), None)
    with visit_to(tmp_path, [cell], "fresh") as visit:
        assert visit.claim(cell) == "taken", "a run with --fresh measures it again"
        visit.keep(cell, rows_of(cell, "fresh"), None)
        assert visit.claim(cell) == "finished"


def test_a_plan_lasts_from_the_start_of_a_run_until_it_is_sealed(tmp_path: Path) -> None:
    cells = cells_of("vanilla")
    with visit_to(tmp_path, cells, "first") as visit:
        (path,) = read_plans(visit.folder.runs)
        assert is_locked(path)
        visit.keep(cells[0], rows_of(cells[0]), None)
    assert not is_locked(path)
    assert list(read_plans(visit.folder.runs)) == [path], "an interrupted run is remembered"
    with visit_to(tmp_path, cells[:2], "other", "lcbench run --task mqar"):
        assert len(read_plans(visit.folder.runs)) == 2
    with visit_to(tmp_path, cells, "second") as again:
        assert [plan.run_id for plan in read_plans(visit.folder.runs).values()] == ["second"]
        for cell in cells[1:]:
            again.keep(cell, rows_of(cell), None)
        sealing = again.seal()
    assert read_plans(visit.folder.runs) == {}
    assert sealing.path is not None
    assert len(store.read_rows([sealing.path]).frame) == sum(len(c.contexts) for c in cells)


def test_who_comes_alone_sweeps_up_what_killed_runs_left(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "smoke", "here")
    folder.prepare()
    (folder.cells / ".a.parquet.0.tmp").write_bytes(b"half")
    (folder.claims / "a").write_text("{}")
    with visit_to(tmp_path, [], "one"):
        assert not list(folder.cells.iterdir())
        assert not list(folder.claims.iterdir())
        (folder.cells / ".b.parquet.0.tmp").write_bytes(b"half")
        with visit_to(tmp_path, [], "two"):
            assert list(folder.cells.iterdir()), "another run may be writing it"


def test_a_plan_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    for name, text in {"a": "{", "b": "[]", "c": '{"cells": 3}', "d": '{"cells": []}'}.items():
        (tmp_path / f"{name}.json").write_text(text)
    assert read_plans(tmp_path) == {}


@pytest.mark.parametrize("missing", [True, False])
def test_sealed_rows_are_not_sealed_again(tmp_path: Path, missing: bool) -> None:
    cells = cells_of("vanilla")[:2]
    folder = Folder(tmp_path, "smoke", "here")
    stems = [folder.stem(cell) for cell in cells]
    for cell in cells:
        folder.keep(cell, rows_of(cell), None)
    kept = {path: path.read_bytes() for path in folder.cells.glob("*.parquet")}
    sealed = folder.seal(stems)
    for path, data in list(kept.items())[1 if missing else 0 :]:
        path.write_bytes(data)  # as if the run was killed before it had cleared them
    assert folder.seal(stems) is None
    assert list(folder.path.glob("*.parquet")) == [sealed]
    assert not list(folder.cells.glob("*.parquet"))
