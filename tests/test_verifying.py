"""`lcbench verify`: cells nobody could choose, measured again; what differs is told."""

from pathlib import Path
from typing import Any

import pytest

from lcbench import registry, runner, store, verifying
from lcbench.config import UsageError
from lcbench.suite import Cell, Selection, plan_cells

Checkout = Any


@pytest.fixture(scope="module")
def submitted(measured_once: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = measured_once.copy(tmp_path_factory.mktemp("submitted") / "checkout")
    done = checkout.lcbench("submit", "my-window")
    assert done.returncode == 0, done.stderr
    return checkout


def file_of(checkout: Checkout) -> Path:
    (path,) = (checkout.root / "results" / "published").rglob("*.parquet")
    return path


def cells_of(suite_name: str) -> list[Cell]:
    suite = registry.load_suite(suite_name)
    return plan_cells(
        suite, suite_name, runner.describe_methods([("vanilla", ""), ("sliding-window", "")]),
        runner.describe_tasks(suite), select=Selection(), dtype=suite.dtype, device_kind="cpu",
        harness_hash="h",
    )  # fmt: skip


def test_scores_measured_again_agree_to_the_bit_and_nothing_is_written(submitted: Checkout) -> None:
    def state() -> list[tuple[str, int]]:
        files = (submitted.root / "results").rglob("*")
        return sorted((str(path), path.stat().st_mtime_ns) for path in files if path.is_file())

    before = state()
    # Times of the smoke suite mean nothing, so only what is not a time is held to agree.
    done = submitted.lcbench("verify", str(file_of(submitted)), "--cells", "10")
    assert state() == before
    lines = [line.split() for line in done.stdout.splitlines()]
    scores = [line for line in lines if "score" in line]
    peaks = [line for line in lines if "peak" in line]
    assert len(scores) == 8, done.stdout + done.stderr
    assert all(line[-4:] == ["to", "the", "bit", "agrees"] for line in scores)
    assert len(peaks) == 6
    assert all(line[-1] == "agrees" for line in peaks)


def test_a_number_that_is_not_so_is_found(submitted: Checkout, tmp_path: Path) -> None:
    path = file_of(submitted)
    rows = store.read_table([path]).table.to_pylist()
    for row in rows:
        if row["method"] == "my-window" and row["peak_bytes"]:
            row["peak_bytes"] = round(row["peak_bytes"] * 1.3)
    checkout = submitted.copy(tmp_path / "checkout")
    file_of(checkout).unlink()
    folder = checkout.root / "results" / "published" / "smoke" / "my-window"
    forged = store.seal(rows, folder, max(row["started_at"] for row in rows).date())
    done = checkout.lcbench("verify", str(forged), "--cells", "10")
    assert done.returncode == 1
    differing = [line for line in done.stdout.splitlines() if line.rstrip().endswith("differs")]
    assert sum("peak bytes" in line for line in differing) == 3, done.stdout + done.stderr


def test_a_file_that_breaks_a_rule_is_not_measured(submitted: Checkout, tmp_path: Path) -> None:
    folder = tmp_path / "smoke" / "my-window"
    folder.mkdir(parents=True)
    renamed = folder / "2026-01-01-0123456789ab.parquet"
    renamed.write_bytes(file_of(submitted).read_bytes())
    done = submitted.lcbench("verify", str(renamed))
    assert done.returncode == 1
    assert "digest: " in done.stderr
    assert "nothing was measured" in done.stderr


def test_cells_are_drawn_by_the_files_content_and_of_both_kinds() -> None:
    cells = cells_of("quick")
    first = verifying.draw(cells, 4, "2026-01-01-0123456789ab")
    assert first == verifying.draw(list(reversed(cells)), 4, "2026-01-01-0123456789ab")
    assert [cell.kind == "quality" for cell in first] == [True, False, True, False]
    draws = [verifying.draw(cells, 4, f"{number}") for number in range(200)]
    assert {cell.cell_id for drawn in draws for cell in drawn} == {cell.cell_id for cell in cells}
    assert len(verifying.draw(cells, 1000, "x")) == len(cells)


def test_dear_cells_are_left_out_where_there_are_cheap_ones() -> None:
    cells = cells_of("standard")
    seconds = {cell.cell_id: verifying.estimate_seconds(cell) for cell in cells}
    drawn = verifying.draw(cells, 1000, "x")
    half = sorted(s for c, s in seconds.items() if c in {d.cell_id for d in cells})
    most = max(seconds[cell.cell_id] for cell in drawn)
    assert most <= max(verifying.CHEAP_S, half[-1])
    assert len(drawn) < len(cells)


QUALITY: dict[str, Any] = {
    "context": 64, "status": "ok", "score": 0.9, "score_se": 0.01, "floor": 0.1, "ceiling": 1.0,
    "num_params": 7, "num_examples": 64,
}  # fmt: skip
COST: dict[str, Any] = {
    "context": 128, "status": "ok", "method": "sliding-window", "vs_vanilla": 2.0,
    "peak_bytes": 1000, "memory_source": "profiler", "state_bytes": 64, "num_params": 7,
    "device": "a", "cpu": "a", "torch": "2", "cuda": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "change", "verdicts"),
    [
        (QUALITY, {}, ["agrees"]),
        (QUALITY, {"score": 0.86}, ["agrees"]),
        (QUALITY, {"score": 0.84}, ["differs"]),
        (QUALITY, {"num_params": 8}, ["agrees", "differs"]),
        (QUALITY, {"num_examples": 32}, ["agrees", "differs"]),
        (QUALITY, {"status": "error"}, ["differs"]),
        (QUALITY, {"status": "oom"}, ["not compared"]),
        (QUALITY, {"status": "timeout"}, ["not compared"]),
        (QUALITY, {"context": 32}, ["differs"]),
        (COST, {"vs_vanilla": 2.9}, ["agrees", "agrees"]),
        (COST, {"vs_vanilla": 3.1}, ["differs", "agrees"]),
        (COST, {"vs_vanilla": 3.1, "cpu": "b"}, ["agrees", "agrees"]),
        (COST, {"vs_vanilla": 4.1, "cpu": "b"}, ["differs", "agrees"]),
        (COST, {"peak_bytes": 1200}, ["agrees", "differs"]),
        (COST, {"state_bytes": 65}, ["agrees", "agrees", "differs"]),
    ],
)
def test_what_agrees(row: dict[str, Any], change: dict[str, Any], verdicts: list[str]) -> None:
    kind = "quality" if row is QUALITY else "prefill"
    cell = next(c for c in cells_of("smoke") if c.kind == kind)
    for pair in ((row, row | change), (row | change, row)):
        found = verifying.compare(cell, [pair[0]], [pair[1]])
        assert [comparison.verdict for comparison in found] == verdicts


def test_rows_of_an_earlier_commit_are_told_with_the_command_that_measures_them_there(
    submitted: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = {"dirty": False, "commit": "0123456789abcdef", "cell_id": "of other code",
           "method": "vanilla", "config": '{"positions":"rotary"}'}  # fmt: skip
    rows = [{**row, **was} for row in store.read_table([file_of(submitted)]).table.to_pylist()]
    monkeypatch.setattr(verifying, "_read", lambda path: rows)
    report = verifying.verify(file_of(submitted), 4, tell=lambda line: None)
    assert report.comparisons == []
    told = report.notes[0].splitlines()
    assert told[1] == "At 0123456789, where they were measured, they can:"
    commands = told[2].strip().split(" && ")
    assert commands[0] == "git worktree add ../lcbench-0123456789 0123456789"
    assert commands[1] == "cd ../lcbench-0123456789"
    assert commands[2].endswith(f"-m lcbench verify {file_of(submitted).resolve()}")
    assert len(told) == 3


def test_another_device_is_told_and_nothing_is_compared(
    submitted: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: str | None) -> runner.Setting:
        raise UsageError("torch sees no cuda device")

    rows = [
        {**row, "device_kind": "cuda", "method": "vanilla", "config": '{"positions":"rotary"}'}
        for row in store.read_table([file_of(submitted)]).table.to_pylist()
    ]
    monkeypatch.setattr(verifying, "_read", lambda path: rows)
    monkeypatch.setattr(runner, "read_setting", refuse)
    report = verifying.verify(Path("f.parquet"), 4, tell=lambda line: None)
    assert report.comparisons == []
    assert report.agrees
    assert report.summary == "Nothing was compared."
    assert "10 of 10 cells were measured with other code" in report.notes[0]
    assert "where they were measured" not in report.notes[0]  # with changes nobody else has
    assert report.notes[1] == (
        "Nothing was measured: the rows are of cuda, and torch sees no cuda device."
    )
