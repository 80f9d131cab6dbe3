"""What the harness itself costs: laying out a plan, and a call in a child process."""

from typing import Any

from lcbench.isolation import call
from lcbench.registry import load_suite
from lcbench.suite import Cell, MethodCard, Selection, TaskCard, plan_cells


def test_planning_the_standard_suite_for_twenty_methods(benchmark: Any) -> None:
    suite = load_suite("standard")
    methods = [MethodCard(f"method-{n}", '{"window":64}', f"hash-{n}") for n in range(20)]
    tasks = [TaskCard("{}", 1, f"hash of {asked.task}") for asked in suite.tasks]

    def plan() -> tuple[list[Cell], set[str]]:
        cells = plan_cells(
            suite, "standard", methods, tasks,
            select=Selection(), dtype="bfloat16", device_kind="cuda", harness_hash="h",
        )  # fmt: skip
        return cells, {cell.cell_id for cell in cells}

    cells, ids = benchmark(plan)
    rungs = len(suite.cost.contexts) * len(suite.cost.kinds)
    assert len(cells) == len(ids) == 20 * (len(suite.tasks) * len(suite.seeds) + rungs)


def test_a_call_in_a_child_that_does_nothing(benchmark: Any) -> None:
    # A built-in that takes the one argument every target gets, and needs no import in the child.
    call(callable)
    verdict = benchmark.pedantic(call, (callable,), rounds=5)
    assert verdict.status == "ok"
    assert verdict.value is True
