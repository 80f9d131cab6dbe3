import dataclasses
import math
from typing import Any, get_args

import pytest

from lcbench import estimate, registry, train
from lcbench.environment import DeviceKind
from lcbench.estimate import (
    DEVICE_CONTEXT_BYTES,
    FLOAT_BYTES,
    estimate_bytes,
    estimate_device_bytes,
    estimate_seconds,
)
from lcbench.suite import (
    Cell,
    CostPlan,
    MethodCard,
    Selection,
    Suite,
    TaskCard,
    plan_cells,
    read_quality_recipe,
)


def plan(suite: Suite, device_kind: str = "cpu") -> list[Cell]:
    cards = [TaskCard("{}", 1, "hash") for _ in suite.tasks]
    return plan_cells(
        suite, "for-tests", [MethodCard("vanilla", "{}", "hash")], cards,
        select=Selection(), dtype="float32", device_kind=device_kind, harness_hash="h",
    )  # fmt: skip


def quality(**changes: Any) -> Cell:
    suite = registry.load_suite("quick")
    task = dataclasses.replace(suite.tasks[0], **changes)
    return plan(dataclasses.replace(suite, tasks=(task,)))[0]


def cost(kind: str, **changes: Any) -> Cell:
    suite = registry.load_suite("quick")
    ladder = CostPlan(
        **{"contexts": (1024,), "d_model": 64, "num_heads": 4, "seconds": 0.1} | changes
    )
    cells = plan(dataclasses.replace(suite, tasks=(), cost=ladder))
    return next(cell for cell in cells if cell.kind == kind)


@pytest.mark.parametrize("device_kind", get_args(DeviceKind))
@pytest.mark.parametrize("name", registry.suite_names())
def test_every_cell_of_every_suite_has_an_estimate(name: str, device_kind: str) -> None:
    for cell in plan(registry.load_suite(name), device_kind):
        assert 0 < estimate_seconds(cell) < math.inf
        assert 0 < estimate_bytes(cell) < 2**40
        assert isinstance(estimate_bytes(cell), int)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 500},
        {"batch": 16},
        {"train_context": 1024},
        {"learning_rates": (1e-2, 1e-3)},
        {"contexts": (512, 1024, 2048, 4096)},
        {"test_tokens": 2**20},
    ],
    ids=lambda change: next(iter(change)),
)
def test_more_training_or_scoring_is_estimated_to_take_longer(change: dict[str, Any]) -> None:
    assert estimate_seconds(quality(**change)) > estimate_seconds(quality())


@pytest.mark.parametrize("kind", ["prefill", "train_step"])
def test_a_dense_layer_is_estimated_to_grow_with_the_square_of_the_context(kind: str) -> None:
    short, long = (estimate_seconds(cost(kind, contexts=(2**n,))) for n in (15, 16))
    assert 3.5 < long / short < 4


def test_a_training_step_is_estimated_to_take_three_passes() -> None:
    prefill, step = (
        estimate_seconds(cost(kind, contexts=(2**16,))) for kind in ("prefill", "train_step")
    )
    assert 2.5 < step / prefill < 3


def test_seconds_a_suite_asks_for_are_in_the_estimate() -> None:
    longer = estimate_seconds(cost("decode", seconds=5.1)) - estimate_seconds(cost("decode"))
    assert longer == pytest.approx(5.0)


def test_bytes_grow_with_the_tokens_held_at_once() -> None:
    assert estimate_bytes(quality(batch=16)) == 2 * estimate_bytes(quality())
    assert estimate_bytes(cost("prefill", contexts=(2048,))) == 2 * estimate_bytes(cost("prefill"))


def test_a_gpu_is_estimated_to_be_faster_than_a_core() -> None:
    cell = quality()
    on_gpu = dataclasses.replace(cell, device_kind="cuda")
    assert estimate_seconds(on_gpu) < estimate_seconds(cell)


def test_a_gpu_estimate_covers_the_scores_of_a_dense_method_and_grows_with_the_batch() -> None:
    for cell in plan(registry.load_suite("standard"), "cuda"):
        if cell.kind == "quality":
            model, asked = read_quality_recipe(cell)
            scores = asked.batch * model.num_heads * asked.train_context**2 * FLOAT_BYTES
            assert estimate_device_bytes(cell) > DEVICE_CONTEXT_BYTES + scores
    small, large = (quality(train_context=2048, contexts=(2048,), batch=b) for b in (16, 32))
    assert estimate_device_bytes(large) > 1.5 * estimate_device_bytes(small) - DEVICE_CONTEXT_BYTES
    assert estimate.SCORED_TOKENS == train.EVALUATION_TOKENS
