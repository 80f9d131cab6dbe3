"""How a run reads what is asked of it."""

import dataclasses
import os
import signal

import pytest

from lcbench import running
from lcbench.config import UsageError
from lcbench.estimate import estimate_seconds
from lcbench.registry import load_suite
from lcbench.running import Shard, TerminatedError, read_shard
from lcbench.suite import DRAFT, Cell, MethodCard, Selection, TaskCard, plan_cells


def standard_cells() -> list[Cell]:
    suite = load_suite("standard")
    cards = [MethodCard(name, "{}", name) for name in ("vanilla", "recurrence", "sliding-window")]
    tasks = [TaskCard("{}", 1, plan.task) for plan in suite.tasks]
    return plan_cells(
        suite, "standard", cards, tasks,
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


@pytest.mark.parametrize("total", [1, 2, 3, 8])
def test_every_cell_is_in_one_shard_and_shards_take_about_as_long(total: int) -> None:
    cells = standard_cells()
    shards = [Shard(number, total).of(cells) for number in range(1, total + 1)]
    assert sorted(c.cell_id for shard in shards for c in shard) == sorted(c.cell_id for c in cells)
    for shard in shards:
        assert shard == [cell for cell in cells if cell in shard], "a shard keeps the plan's order"
    seconds = [sum(map(estimate_seconds, shard)) for shard in shards]
    longest = max(map(estimate_seconds, cells))
    assert max(seconds) - min(seconds) <= longest


def test_shards_do_not_depend_on_the_hashes_of_code() -> None:
    total = 3
    cells = standard_cells()
    edited = [dataclasses.replace(cell, harness_hash="other") for cell in cells]
    for number in range(1, total + 1):
        labels = [cell.label for cell in Shard(number, total).of(cells)]
        assert labels == [cell.label for cell in Shard(number, total).of(edited)]


def test_more_shards_than_cells_leave_some_empty() -> None:
    cells = standard_cells()[:2]
    assert [len(Shard(number, 4).of(cells)) for number in range(1, 5)] == [1, 1, 0, 0]


def test_a_limit_cuts_work_and_keeps_what_is_asked_under_another_name() -> None:
    suite = load_suite("standard")
    cut, name = running.limited(suite, "standard", 5)
    assert (name, cut.version, cut.model) == ("standard-limit5", DRAFT, suite.model)
    assert cut.cost.contexts == suite.cost.contexts[:1]
    for mine, whole in zip(cut.tasks, suite.tasks, strict=True):
        assert (mine.steps, mine.batch) == (5, min(5, whole.batch))
        assert {mine.test_examples(context) for context in mine.contexts} == {5}
        for same in ("task", "config", "train_context", "contexts", "learning_rates"):
            assert getattr(mine, same) == getattr(whole, same)
    unlimited, _ = running.limited(suite, "standard", 10**9)
    assert [plan.steps for plan in unlimited.tasks] == [plan.steps for plan in suite.tasks]


@pytest.mark.parametrize("text", ["", "3", "/8", "3/", "0/8", "9/8", "-1/8", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        read_shard(text)
    assert read_shard("3/8") == Shard(3, 8)


def test_sigterm_stops_a_run_as_ctrl_c_does() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, running.terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert isinstance(caught.value, TerminatedError)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
