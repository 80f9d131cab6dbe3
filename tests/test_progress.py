"""What the live display says of a cell under way."""

import json
from typing import Any

import pytest
from rich.console import Console

from lcbench import terminal
from lcbench.registry import load_suite
from lcbench.runner import Event, Setting
from lcbench.suite import Cell, MethodCard, Selection, TaskCard, plan_cells
from lcbench.terminal import Progress


@pytest.fixture
def cells() -> list[Cell]:
    suite = load_suite("smoke")
    return plan_cells(
        suite, "smoke", [MethodCard("vanilla", "{}", "h")],
        [TaskCard(json.dumps(dict(plan.config)), 1, "h") for plan in suite.tasks],
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


@pytest.fixture
def progress(cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> Progress:
    out = Console(width=200, record=True)
    monkeypatch.setattr(terminal, "console", lambda: out)
    environment: dict[str, Any] = {"device_kind": "cpu", "threads": 2, "device": "test"}
    setting = Setting("run", environment, {}, ["the machine is busy"])
    return Progress(cells, {}, setting, 1)


def seen(progress: Progress) -> str:
    progress.console.print(progress._render())
    return progress.console.export_text()


def test_a_training_cell_shows_its_step_loss_and_throughput(
    progress: Progress, cells: list[Cell]
) -> None:
    report = {"step": 7, "steps": 10, "loss": 1.2345, "tokens_per_s": 12345.6}
    (cell, *_) = cells
    progress(Event("started", cell, None))
    progress(Event("report", cell, report))
    assert "step 7/10, loss 1.234, 12,346 tokens/s" in seen(progress)
    progress(Event("stage", cell, "evaluate"))
    assert "evaluate" in seen(progress)


def test_what_is_wrong_with_the_machine_stands_at_the_start(progress: Progress) -> None:
    assert "Warning: the machine is busy" in seen(progress)


def test_a_cell_that_ran_out_of_time_at_a_longer_context_shows_what_stands() -> None:
    short = {"status": "ok", "kind": "quality", "metric": "accuracy", "score": 0.5, "floor": 0.1}
    rows = [{**short, "context": 64}, {"status": "timeout", "kind": "quality", "context": 128}]
    assert terminal.outcome_text(rows) == "50.0 / timeout % at 64 / 128, floor 10.0"


def test_a_timing_whose_anchor_failed_shows_no_ratio() -> None:
    row = {"status": "ok", "kind": "prefill", "method": "mine", "context": 64}
    told = terminal.outcome_text([{**row, "tokens_per_s": 10.0, "vs_vanilla": None}])
    assert told == "10 tokens/s"
