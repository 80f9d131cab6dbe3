import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from lcbench import registry
from lcbench.suite import (
    Cell,
    CostPlan,
    MethodCard,
    ModelPlan,
    Selection,
    Suite,
    TaskCard,
    TaskPlan,
    plan_cells,
    read_cost_recipe,
    read_quality_recipe,
)
from lcbench.task import IGNORE
from lcbench.train import context_at

MODEL: dict[str, Any] = {"d_model": 16, "num_layers": 2, "num_heads": 2}
RECALL: dict[str, Any] = {
    "task": "recall",
    "config": {"num_pairs": "4"},
    "train_context": 64,
    "contexts": (64, 128),
    "batch": 4,
    "steps": 10,
    "learning_rates": (1e-2, 3e-3),
    "ramp": 1,
}
TEXT = RECALL | {"task": "text", "config": {}, "contexts": (64,)}
COST: dict[str, Any] = {"contexts": (128, 64), "d_model": 32, "num_heads": 4}
SUITE = Suite(
    title="For tests",
    version=3,
    device_kind="cpu",
    dtype="float32",
    model=ModelPlan(**MODEL),
    tasks=(TaskPlan(**RECALL), TaskPlan(**TEXT)),
    cost=CostPlan(**COST),
    seeds=(0, 1),
    threads=2,
    timeout_s=30.0,
)
METHODS = [MethodCard("b", '{"window":8}', "hash-b"), MethodCard("a", "{}", "hash-a")]
TASKS = [TaskCard('{"num_pairs":4}', 2, "hash-recall"), TaskCard("{}", 1, "hash-text")]


def plan(
    suite: Suite = SUITE,
    *,
    methods: list[MethodCard] = METHODS,
    tasks: list[TaskCard] = TASKS,
    select: Selection = Selection(),  # noqa: B008 -- a tuple
    **changes: Any,
) -> list[Cell]:
    shared = {"dtype": "float32", "device_kind": "cpu", "harness_hash": "h"} | changes
    return plan_cells(suite, "for-tests", methods, tasks, select=select, **shared)


def ids(cells: list[Cell]) -> list[str]:
    return [cell.cell_id for cell in cells]


def test_a_plan_goes_task_by_task_then_up_the_ladder_with_methods_side_by_side() -> None:
    found = [(c.task or c.kind, c.contexts, c.seed, c.method) for c in plan()]
    quality = [
        (task, contexts, seed, method)
        for task, contexts in (("recall", (64, 128)), ("text", (64,)))
        for seed in (0, 1)
        for method in ("b", "a")
    ]
    cost = [
        (kind, (context,), 0, method)
        for context in (128, 64)
        for kind in ("prefill", "train_step", "decode")
        for method in ("b", "a")
    ]
    assert found == quality + cost


def test_cells_of_one_plan_have_ids_of_their_own() -> None:
    cells = plan()
    assert len(set(ids(cells))) == len(cells)


def test_the_same_plan_twice_has_the_same_ids() -> None:
    assert ids(plan()) == ids(plan())


def test_an_id_does_not_depend_on_the_company_it_is_planned_in() -> None:
    alone = plan(methods=METHODS[1:], select=Selection(tasks=["text"], seeds=[1]))
    assert set(ids(alone)) < set(ids(plan()))


def test_an_id_is_the_one_that_published_rows_hold() -> None:
    assert plan()[0].cell_id == "1ea05d81a0287dd62ac3e50c"


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (Selection(tasks=["text"]), {("text", (64,), 0), ("text", (64,), 1)}),
        (Selection(tasks=["text"], seeds=[7]), {("text", (64,), 7)}),
        (Selection(tasks=["text"], contexts=[128]), set()),
        (
            Selection(contexts=[128], seeds=[0]),
            {("recall", (128,), 0)}
            | {(kind, (128,), 0) for kind in ("prefill", "train_step", "decode")},
        ),
        (Selection(tasks=["recall"], contexts=[64], seeds=[0]), {("recall", (64,), 0)}),
        (Selection(contexts=[128], seeds=[0], kinds=["decode"]), {("decode", (128,), 0)}),
    ],
)
def test_a_selection_plans_that_part_alone(select: Selection, expected: set) -> None:
    found = {(c.task or c.kind, c.contexts, c.seed) for c in plan(select=select)}
    assert found == expected


def test_seeds_beyond_the_suites_own_may_be_asked_for() -> None:
    cells = plan(select=Selection(tasks=["recall"], seeds=range(5)))
    assert [cell.seed for cell in cells] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "c"),
        ("method_hash", "other"),
        ("task_hash", "other"),
        ("task_version", 9),
        ("task_config", '{"num_pairs":5}'),
        ("config", '{"window":9}'),
        ("recipe", '{"contexts":[64]}'),
        ("seed", 9),
        ("dtype", "bfloat16"),
        ("device_kind", "cuda"),
        ("harness_hash", "other"),
        ("suite", "other"),
        ("suite_version", 4),
        ("kind", "decode"),
    ],
)
def test_an_id_changes_with_whatever_defines_the_work(name: str, value: object) -> None:
    cell = plan()[0]
    assert dataclasses.replace(cell, **{name: value}).cell_id != cell.cell_id


@pytest.mark.parametrize(("name", "value"), [("timeout_s", 9.0), ("threads", 1)])
def test_an_id_does_not_change_with_how_it_is_run(name: str, value: object) -> None:
    cell = plan()[0]
    assert dataclasses.replace(cell, **{name: value}).cell_id == cell.cell_id


@pytest.mark.parametrize(
    "change",
    [
        {"model": ModelPlan(**MODEL | {"num_layers": 3})},
        {"model": ModelPlan(**MODEL | {"conv_width": 2})},
        {"tasks": (TaskPlan(**RECALL | {"steps": 11}), TaskPlan(**TEXT | {"steps": 11}))},
        {"tasks": (TaskPlan(**RECALL | {"ramp": 0}), TaskPlan(**TEXT | {"ramp": 0}))},
        {
            "tasks": (
                TaskPlan(**RECALL | {"test_tokens": 64}),
                TaskPlan(**TEXT | {"test_tokens": 64}),
            )
        },
    ],
    ids=["layers", "convolution", "steps", "ramp", "test tokens"],
)
def test_a_suite_that_asks_otherwise_shares_no_quality_cell(change: dict[str, Any]) -> None:
    select = Selection(tasks=["recall", "text"])
    changed = plan(dataclasses.replace(SUITE, **change), select=select)
    assert not set(ids(changed)) & set(ids(plan(select=select)))


def test_a_wider_ladder_keeps_the_rungs_it_had() -> None:
    wider = dataclasses.replace(SUITE, cost=CostPlan(**COST | {"contexts": (64, 128, 256)}))
    assert set(ids(plan())) < set(ids(plan(wider)))


def test_quality_cells_have_the_suites_threads_and_cost_cells_all() -> None:
    assert {cell.threads for cell in plan() if cell.kind == "quality"} == {2}
    assert {cell.threads for cell in plan() if cell.kind != "quality"} == {0}


def test_the_timeout_is_the_suites_unless_given() -> None:
    assert {cell.timeout_s for cell in plan()} == {30.0}
    assert {cell.timeout_s for cell in plan(timeout_s=5.0)} == {5.0}


def test_a_method_that_did_not_load_is_planned_with_its_error() -> None:
    broken = MethodCard("broken", "{}", "hash", "SyntaxError: here")
    assert {cell.load_error for cell in plan(methods=[broken])} == {"SyntaxError: here"}


def test_a_quality_recipe_reads_back_to_its_plans() -> None:
    for cell in plan(select=Selection(tasks=["recall"])):
        model, task = read_quality_recipe(cell)
        assert model == SUITE.model
        # The task's own config travels with the cell, resolved.
        assert task == dataclasses.replace(SUITE.tasks[0], config={})
        assert cell.task_config == TASKS[0].config
        assert cell.train_context == 64


def test_a_quality_recipe_holds_the_selected_contexts() -> None:
    (cell, *_) = plan(select=Selection(tasks=["recall"], contexts=[128]))
    assert read_quality_recipe(cell)[1].contexts == cell.contexts == (128,)


def test_a_cost_recipe_reads_back_to_its_plan_at_one_context() -> None:
    for cell in plan():
        if cell.kind != "quality":
            expected = dataclasses.replace(SUITE.cost, contexts=cell.contexts)
            assert read_cost_recipe(cell) == expected
            assert cell.train_context is None


def test_a_label_tells_one_line_of_progress_from_another() -> None:
    labels = [cell.label for cell in plan()]
    assert len(set(labels)) == len(labels)
    assert labels[0] == "b · recall · seed 0"
    assert labels[-1] == "a · decode at 64"


def test_as_many_examples_are_scored_as_fit_and_never_fewer_than_eight() -> None:
    task = TaskPlan(**RECALL | {"test_tokens": 1024})
    assert [task.test_examples(context) for context in (64, 100, 128, 4096)] == [16, 10, 8, 8]


def test_a_most_of_examples_holds_whatever_the_tokens() -> None:
    task = TaskPlan(**RECALL | {"test_tokens": 1024, "max_examples": 3})
    assert [task.test_examples(context) for context in (64, 4096)] == [3, 3]


def test_plans_without_a_most_of_examples_keep_their_ids() -> None:
    recipe = json.loads(plan()[0].recipe)
    assert "max_examples" not in recipe
    cut = TaskPlan(**RECALL | {"max_examples": 3})
    (cell, *_) = plan(dataclasses.replace(SUITE, tasks=(cut,)), tasks=TASKS[:1])
    assert read_quality_recipe(cell)[1].max_examples == 3


def test_a_jitter_enters_the_id_of_a_plan_that_has_one_alone() -> None:
    assert "jitter" not in json.loads(plan()[0].recipe)
    shaken = TaskPlan(**RECALL | {"jitter": 64})
    (cell, *_) = plan(dataclasses.replace(SUITE, tasks=(shaken,)), tasks=TASKS[:1])
    assert read_quality_recipe(cell)[1].jitter == 64
    assert cell.cell_id != plan()[0].cell_id


def test_a_draft_is_version_zero() -> None:
    assert {cell.suite_version for cell in plan(dataclasses.replace(SUITE, version=0))} == {0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_context": 0}, "recall: train_context must be above 0, got 0"),
        ({"batch": 0}, "recall: batch"),
        ({"steps": -1}, "recall: steps must be above 0, got -1"),
        ({"test_tokens": 0}, "recall: test_tokens"),
        ({"max_examples": 0}, "recall: max_examples"),
        ({"jitter": -1}, "recall: jitter must be at least 0, got -1"),
        ({"contexts": ()}, "recall: contexts"),
        ({"learning_rates": ()}, "learning_rates must not be empty"),
        ({"ramp": -1}, "recall: ramp -1"),
        ({"ramp": 7}, "recall: ramp 7 does not divide 64"),
        ({"contexts": (64, 0)}, "recall: contexts"),
        ({"learning_rates": (1e-2, 0.0)}, "recall: learning_rates"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_task_plan_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TaskPlan(**RECALL | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_model": 0}, "cost: d_model"),
        ({"batch": 0}, "cost: batch"),
        ({"seconds": 0.0}, "cost: seconds"),
        ({"num_heads": 3}, "cost: num_heads 3 does not divide d_model 32"),
        ({"num_heads": 0}, "cost: num_heads"),
        ({"contexts": (64, 0)}, "cost: contexts"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_cost_plan_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CostPlan(**COST | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_layers": 0}, "model: num_layers must be above 0, got 0"),
        ({"conv_width": 0}, "model: conv_width"),
        ({"num_heads": 3}, "model: num_heads 3 does not divide d_model 16"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_model_plan_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelPlan(**MODEL | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": -1}, "suite: version must be at least 0, got -1"),
        ({"timeout_s": 0.0}, "suite: timeout_s"),
        ({"seeds": ()}, "suite: seeds must not be empty"),
        ({"threads": -1}, "suite: threads"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_suite_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SUITE, **change)


@pytest.mark.parametrize("name", registry.suite_names())
def test_every_suite_asks_what_its_tasks_can_draw(name: str) -> None:
    suite = registry.load_suite(name)
    for asked in suite.tasks:
        spec = registry.load_task(asked.task)
        task = spec.build(spec.config().override(asked.config), "test")
        shortest = context_at(asked, 0)
        assert context_at(asked, asked.steps - 1) == asked.train_context
        for context in {shortest, asked.train_context, *asked.contexts}:
            batch = task.sample(np.random.default_rng(0), 2, context)
            assert batch.inputs.shape == batch.targets.shape == (2, context)
            assert (batch.targets != IGNORE).any(axis=1).all()
        assert asked.train_context in asked.contexts


@pytest.mark.parametrize("name", registry.suite_names())
def test_every_suite_can_be_planned_without_two_cells_alike(name: str) -> None:
    suite = registry.load_suite(name)
    tasks = [TaskCard("{}", 1, f"hash of {asked.task}") for asked in suite.tasks]
    cells = plan(suite, tasks=tasks, dtype=suite.dtype, device_kind=suite.device_kind)
    assert len(set(ids(cells))) == len(cells)
    assert suite.model.d_model % suite.model.num_heads == 0
