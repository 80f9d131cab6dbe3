"""Profiles: which cell is meant, and what a trace holds."""

import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from lcbench import registry
from lcbench.config import UsageError
from lcbench.profiling import STEPS, choose_cell, profile_cell
from lcbench.registry import load_suite
from lcbench.suite import Cell, MethodCard, Selection, TaskCard, plan_cells


def planned() -> list[Cell]:
    suite = load_suite("smoke")
    cards = [
        MethodCard("vanilla", '{"positions":"rotary"}', registry.source_hash("method", "vanilla")),
        *(MethodCard("sliding-window", f'{{"window":{w}}}', "hash") for w in (8, 16)),
    ]
    tasks = [
        TaskCard(
            registry.load_task(plan.task).config().override(plan.config).canonical(),
            1,
            registry.source_hash("task", plan.task),
        )
        for plan in suite.tasks
    ]
    return plan_cells(
        suite, "smoke", cards, tasks,
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


CELLS = planned()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("vanilla · mqar · seed 0", "vanilla · mqar · seed 0"),
        ("vanilla mqar", "vanilla · mqar · seed 0"),
        ("Vanilla/MQAR/seed 0", "vanilla · mqar · seed 0"),
        ("vanilla prefill", "vanilla · prefill at 128"),
        ("vanilla · train_step at 128", "vanilla · train_step at 128"),
    ],
)
def test_a_cell_goes_by_its_label_or_the_start_of_it(name: str, label: str) -> None:
    assert choose_cell(CELLS, name).label == label


def test_a_cell_goes_by_the_start_of_its_id() -> None:
    for cell in CELLS:
        assert choose_cell(CELLS, cell.cell_id[:8]) == cell


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vanila mqar", "nearest are: vanilla mqar seed 0"),
        ("vanilla", r"any of 5 cells: vanilla · mqar · seed 0 \(\w{8}\), .*, \.\.\.; give a full"),
        ("vanilla prefill at 12", "no cell"),
        ("", "no cell ''"),
        # Two configs of one method share a label: the id sets them apart.
        ("sliding-window mqar", r"any of 2 cells: sliding-window · mqar · seed 0 \(\w{8}\), sl"),
    ],
)
def test_a_name_that_means_none_or_several_is_told(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_cell(CELLS, name)


@pytest.mark.parametrize("name", ["vanilla mqar", "vanilla prefill"])
def test_a_profile_is_a_trace_and_a_table_of_the_cells_operations(
    tmp_path: Path, name: str
) -> None:
    profile = profile_cell(choose_cell(CELLS, name), tmp_path)
    (path,) = (tmp_path / "profiles").iterdir()
    assert profile.path == path
    assert path.name.startswith(name.replace(" ", "-"))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    steps = [e for e in events if e["name"] == "Optimizer.step#AdamW.step"]
    assert len(steps) == (STEPS if "mqar" in name else 0)
    assert any(e["name"] == "aten::mm" for e in events)
    assert 1 <= len(profile.operations) <= 10
    times = [operation.self_ms for operation in profile.operations]
    assert times == sorted(times, reverse=True)
    assert 0 < sum(times) <= profile.total_ms * (1 + 1e-9)
    assert "aten::mm" in {operation.name for operation in profile.operations}


def test_a_cell_that_cannot_be_profiled_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    cell = choose_cell(CELLS, "vanilla prefill")
    edited = dataclasses.replace(cell, method_hash="of another text")
    with pytest.raises(RuntimeError, match=r"prefill at 128 ended as error: .*was edited"):
        profile_cell(edited, tmp_path)
    assert list((tmp_path / "profiles").iterdir()) == []
    broken = dataclasses.replace(cell, load_error="SyntaxError: invalid syntax")
    with pytest.raises(RuntimeError, match="cannot be loaded: SyntaxError"):
        profile_cell(broken, tmp_path)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RuntimeError, match="cannot be written"):
        profile_cell(cell, tmp_path / "file")
