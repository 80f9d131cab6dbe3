"""What the harness itself costs: laying out a plan, a call in a child, and the share of a run.

`pytest tests/bench/test_harness_bench.py --benchmark-enable -k share -s` prints the share of the
quick suite's wall time that goes to claiming cells, handling processes, keeping and sealing rows:
what a whole run takes whose children do nothing, one after the other, over what the suite takes
with one job, which `LCBENCH_QUICK_SECONDS` tells (an estimate stands in for it). Seen on two idle
cores: 2.06 s of 349 s for 76 cells, 0.6 %; with both cores taken by other work 8.2 s, 2.4 %.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from lcbench.estimate import estimate_seconds
from lcbench.isolation import Child, call
from lcbench.journal import Folder, Visit
from lcbench.locks import MachineLock
from lcbench.pool import LocalPool, News
from lcbench.registry import load_suite
from lcbench.runner import Setting, run_cells
from lcbench.suite import Cell, MethodCard, Selection, TaskCard, plan_cells


def plan(suite_name: str, methods: list[str]) -> list[Cell]:
    suite = load_suite(suite_name)
    cards = [MethodCard(name, '{"window":64}', f"hash-{name}") for name in methods]
    tasks = [TaskCard("{}", 1, f"hash of {asked.task}") for asked in suite.tasks]
    return plan_cells(
        suite, suite_name, cards, tasks,
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


def test_planning_the_standard_suite_for_twenty_methods(benchmark: Any) -> None:
    suite = load_suite("standard")
    cells = benchmark(plan, "standard", [f"method-{n}" for n in range(20)])
    rungs = len(suite.cost.contexts) * len(suite.cost.kinds)
    assert len({cell.cell_id for cell in cells}) == len(cells)
    assert len(cells) == 20 * (len(suite.tasks) * len(suite.seeds) + rungs)


def test_a_call_in_a_child_that_does_nothing(benchmark: Any) -> None:
    # A built-in that takes the one argument every target gets, and needs no import in the child.
    call(callable)
    verdict = benchmark.pedantic(call, (callable,), rounds=5)
    assert verdict.status == "ok"
    assert verdict.value is True


class IdlePool(LocalPool):
    """The local pool with children that do nothing, and rows that the parent makes up."""

    def submit(self, cell: Cell) -> None:
        self._running[Child(callable, (), timeout_s=60.0)] = cell

    def collect(self, timeout_s: float) -> list[News]:
        return [
            News(cell, topic, value._replace(value=[{"status": "ok", "context": cell.contexts[0]}]))
            for cell, topic, value in super().collect(timeout_s)
        ]


FOUR = ["vanilla", "sliding-window", "recurrence", "sparse-global"]


def test_the_share_of_a_quick_run_that_goes_to_processes(benchmark: Any, tmp_path: Path) -> None:
    if benchmark.disabled:
        pytest.skip("a figure for --benchmark-enable; tests/test_survival.py holds the behaviour")
    cells = plan("quick", FOUR)
    setting = Setting("run", {"env_id": "e", "device_kind": "cpu"}, {})
    call(callable)

    def run(number: list[int] = []) -> None:  # noqa: B006 -- counts the rounds
        number.append(0)
        folder = Folder(tmp_path / str(len(number)), "quick", "e")
        pool = IdlePool(1, machine=MachineLock(tmp_path))
        with Visit(folder, cells, "run", "lcbench run") as visit:
            tally = run_cells(cells, visit, pool, setting, lambda event: None, finished={})
        assert tally.measured == len(cells)

    benchmark.pedantic(run, rounds=3)
    if benchmark.enabled:
        idle_s = benchmark.stats.stats.median
        work_s = float(os.environ.get("LCBENCH_QUICK_SECONDS", 0)) or sum(
            map(estimate_seconds, cells)
        )
        benchmark.extra_info["share"] = idle_s / work_s
        print(f"\n{len(cells)} cells: {idle_s:.2f} s of {work_s:.0f} s, {idle_s / work_s:.1%}")  # noqa: T201
