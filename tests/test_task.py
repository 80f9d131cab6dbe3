from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from lcbench.task import Split, Task, TaskConfig, TaskSpec, normalise, stream

SCOPE: dict[str, Any] = {
    "suite": ["quick", 1],
    "task": ["mqar", 1, '{"num_pairs":8}'],
    "seed": 0,
    "context": 512,
}


def drawn(scope: dict[str, Any] = SCOPE, split: Split = "train", step: int = 0) -> list[int]:
    return stream(scope, split, step).integers(2**62, size=8).tolist()


def test_a_stream_is_the_same_every_time() -> None:
    assert drawn() == drawn()


def test_a_stream_draws_what_published_scores_were_measured_on() -> None:
    assert drawn()[:2] == [2052718848888413837, 1084751386428263732]


def test_a_stream_does_not_depend_on_the_order_of_its_scope() -> None:
    assert drawn(dict(reversed(SCOPE.items()))) == drawn()


def test_no_two_of_split_step_and_scope_share_a_stream() -> None:
    variants = [
        drawn(SCOPE | change, split, step)
        for change in (
            {},
            {"seed": 1},
            {"context": 1024},
            {"suite": ["quick", 2]},
            {"suite": ["standard", 1]},
            {"task": ["mqar", 1, '{"num_pairs":9}']},
            {"task": ["mqar", 2, '{"num_pairs":8}']},
        )
        for split in get_args(Split)
        for step in (0, 1, 10, 11)
    ]
    assert len({tuple(numbers) for numbers in variants}) == len(variants)
    assert len({number for numbers in variants for number in numbers}) == 8 * len(variants)


def test_drawing_does_not_touch_numpys_global_state() -> None:
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    drawn()
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize(
    ("score", "floor", "ceiling", "expected"),
    [
        (0.125, 0.125, 1.0, 0.0),
        (1.0, 0.125, 1.0, 1.0),
        (0.75, 0.5, 1.0, 0.5),
        (0.25, 0.5, 1.0, -0.5),
        # Bits per byte: less is better, and still the floor is 0 and the ceiling 1.
        (4.5, 4.5, 0.0, 0.0),
        (0.0, 4.5, 0.0, 1.0),
        (1.5, 4.5, 0.0, 2 / 3),
        (6.0, 4.5, 0.0, -1 / 3),
    ],
)
def test_normalised_scores_run_from_floor_to_ceiling_in_both_directions(
    score: float, floor: float, ceiling: float, expected: float
) -> None:
    assert normalise(score, floor, ceiling) == pytest.approx(expected, abs=1e-12)


SPEC: dict[str, Any] = {
    "build": Task,
    "config": TaskConfig,
    "title": "A task",
    "family": "recall",
    "version": 1,
    "metric": "accuracy",
    "ceiling": 1.0,
    "source": "generated",
    "floor_solver": "the last value",
}


@pytest.mark.parametrize("name", ["title", "family", "source", "floor_solver"])
def test_a_spec_with_an_empty_text_names_it(name: str) -> None:
    with pytest.raises(ValueError, match=f"a task's {name} is empty"):
        TaskSpec(**SPEC | {name: " "})


def test_a_spec_with_a_version_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="version is at least 1, got 0"):
        TaskSpec(**SPEC | {"version": 0})


@pytest.mark.parametrize(
    ("use", "missing"),
    [
        (lambda task: task.vocab_size, "vocab_size"),
        (lambda task: task.sample(np.random.default_rng(0), 1, 8), "sample"),
        (lambda task: task.floor(8), "floor"),
    ],
)
def test_a_task_that_lacks_something_says_what(use: Callable[[Task], Any], missing: str) -> None:
    class Unfinished(Task):
        pass

    with pytest.raises(NotImplementedError, match=f"Unfinished does not define {missing}"):
        use(Unfinished(TaskConfig(), "train"))
