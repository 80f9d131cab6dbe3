"""What every suite must satisfy; a new file in `suites/` is tested with no new test."""

import numpy as np
import pytest

from lcbench import registry
from lcbench.cards import suite_card
from lcbench.suite import DRAFT, TaskPlan, shortest_example
from lcbench.task import IGNORE, stream
from lcbench.train import length

PLANS = [
    pytest.param(plan, id=f"{name}-{plan.task}")
    for name in registry.suite_names()
    for plan in registry.load_suite(name).tasks
]


@pytest.mark.parametrize("plan", PLANS)
def test_every_context_of_a_plan_holds_an_example(plan: TaskPlan) -> None:
    spec = registry.load_task(plan.task)
    task = spec.build(spec.config().override(plan.config), "test")
    shortest = plan.train_context // 2**plan.ramp
    for context in sorted({shortest, plan.train_context, *plan.contexts}):
        for tokens in {context, shortest_example(context, plan.jitter)}:
            batch = task.sample(np.random.default_rng(0), 1, tokens)
            assert batch.inputs.shape == (1, tokens)


@pytest.mark.parametrize("name", registry.suite_names())
def test_a_suite_scores_where_it_trained_and_asks_each_task_once(name: str) -> None:
    suite = registry.load_suite(name)
    assert all(plan.train_context == plan.contexts[0] for plan in suite.tasks)
    assert all(list(plan.contexts) == sorted(plan.contexts) for plan in suite.tasks)
    assert len({plan.task for plan in suite.tasks}) == len(suite.tasks)


def test_no_question_of_quick_stands_where_every_other_does() -> None:
    suite = registry.load_suite("quick")
    for plan in suite.tasks:
        spec = registry.load_task(plan.task)
        task = spec.build(spec.config().override(plan.config), "test")
        scope = {"suite": ["quick", suite.version], "task": plan.task, "seed": 0, "context": 512}
        last: set[int] = set()
        for step in range(64):
            rng = stream(scope, "test", step)
            batch = task.sample(rng, 1, length(rng, 512, plan.jitter))
            last.add(int(np.flatnonzero(batch.targets[0] != IGNORE)[-1]))
        assert len(last) > 20, plan.task
        assert len({position % 64 for position in last}) > 20, plan.task


def test_standard_gives_every_method_one_sweep_and_reads_eight_times_what_it_trained_on() -> None:
    suite = registry.load_suite("standard")
    assert len(suite.seeds) == 3
    assert len({plan.learning_rates for plan in suite.tasks}) == 1
    for plan in suite.tasks:
        assert 512 <= plan.train_context <= 4096
        assert max(plan.contexts) == 8 * plan.train_context
    families = {registry.load_task(plan.task).family for plan in suite.tasks}
    assert {"recall", "copying", "reasoning", "aggregation", "images", "text"} <= families


def test_long_reaches_a_million_tokens() -> None:
    suite = registry.load_suite("long")
    assert max(suite.cost.contexts) == 2**20
    assert {plan.task for plan in suite.tasks} == {"needle", "code-lm"}
    assert all(max(plan.contexts) > 2**17 for plan in suite.tasks)


def test_a_draft_says_so_of_itself() -> None:
    for name in registry.suite_names():
        suite = registry.load_suite(name)
        assert (suite.version == DRAFT) == ("draft" in suite_card(name)), name
