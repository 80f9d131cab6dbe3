"""The local pool: what runs beside what."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lcbench import errands, pool
from lcbench.estimate import estimate_device_bytes
from lcbench.isolation import Send, Verdict
from lcbench.locks import MachineLock
from lcbench.pool import LocalPool, default_jobs
from lcbench.registry import load_suite
from lcbench.suite import Cell, MethodCard, Selection, TaskCard, plan_cells


class IdleChild:
    def __init__(self, target: object, args: object, *, timeout_s: float) -> None:
        self.waitables: list[object] = []

    def stop(self, status: str, error: str) -> None:
        pass


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that do nothing and do not end."""
    monkeypatch.setattr(pool, "Child", IdleChild)


def cells_of(suite_name: str, device_kind: str) -> list[Cell]:
    suite = load_suite(suite_name)
    tasks = [TaskCard("{}", 1, plan.task) for plan in suite.tasks]
    return plan_cells(
        suite, suite_name, [MethodCard(n, "{}", n) for n in ("vanilla", "recurrence")], tasks,
        select=Selection(), dtype="float32", device_kind=device_kind, harness_hash="h",
    )  # fmt: skip


@pytest.mark.usefixtures("idle")
def test_quality_cells_run_side_by_side_and_cost_cells_alone(tmp_path: Path) -> None:
    cells = cells_of("smoke", "cpu")
    quality = [cell for cell in cells if cell.kind == "quality"]
    cost = [cell for cell in cells if cell.kind != "quality"]
    local = LocalPool(2, machine=MachineLock(tmp_path))
    for cell in quality[:2]:
        assert local.obstacle(cell) is None
        local.submit(cell)
        assert local.obstacle(cost[0]) == "a cost cell runs alone"
    assert local.obstacle(quality[2]) == "2 cells run at once"
    local.close()
    assert local.obstacle(cost[0]) is None
    local.submit(cost[0])
    assert local.obstacle(quality[0]) == "a cost cell runs alone"
    assert local.obstacle(cost[1]) == "a cost cell runs alone"
    other = LocalPool(2, machine=MachineLock(tmp_path))
    assert other.obstacle(quality[0]) == "another lcbench run has the machine"
    local.close()
    assert other.obstacle(quality[0]) is None


@pytest.mark.usefixtures("idle")
def test_cells_share_a_gpu_as_far_as_its_memory_goes(tmp_path: Path) -> None:
    quality = [cell for cell in cells_of("standard", "cuda") if cell.kind == "quality"]
    first, second = quality[:2]
    both = estimate_device_bytes(first) + estimate_device_bytes(second)
    room = round(both / pool.DEVICE_SHARE) + 1
    for device_bytes, reason in ((room, None), (room - 2**20, "the GPU has no room for one more")):
        local = LocalPool(8, device_bytes=device_bytes, machine=MachineLock(tmp_path))
        assert local.obstacle(first) is None, "one cell is always tried"
        local.submit(first)
        assert local.obstacle(second) == reason
        local.close()


def test_jobs_are_one_a_core_unless_there_is_a_gpu() -> None:
    assert default_jobs({"device_kind": "cpu", "threads": 8}, threads=1) == 8
    assert default_jobs({"device_kind": "cpu", "threads": 8}, threads=3) == 2
    assert default_jobs({"device_kind": "cuda", "threads": 8}, threads=1) == 1


def measure_or_end_the_server(fields: dict[str, Any], send: Send) -> list[dict[str, Any]]:
    """One method's cell ends the server that another's was forked from."""
    time.sleep(1.0)
    if fields["method"] == "recurrence":
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1.0)
    return [{"status": "ok"}]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no fork server")
def test_a_cell_that_lost_its_server_to_another_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "measure", measure_or_end_the_server)
    quality = [cell for cell in cells_of("smoke", "cpu") if cell.kind == "quality"]
    good = next(cell for cell in quality if cell.method == "vanilla")
    bad = next(cell for cell in quality if cell.method == "recurrence")
    local = LocalPool(2, machine=MachineLock(tmp_path))
    for cell in (good, bad):
        local.submit(cell)
    verdicts: list[tuple[str, Verdict]] = []
    until = time.monotonic() + 120
    while len(verdicts) < 2 and time.monotonic() < until:
        told = local.collect(0.2)
        verdicts += [(news.cell.method, news.value) for news in told if news.topic == "verdict"]
        if len(verdicts) < 2:
            assert local.obstacle(quality[2]) is not None, "what is tried again runs alone"
    assert local.obstacle(quality[2]) is None
    local.close()
    assert {method: verdict.status for method, verdict in verdicts} == {
        "vanilla": "ok",
        "recurrence": "crashed",
    }
