"""What trivial solvers score: measured on the test split, for tasks where no formula tells."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcbench.task import IGNORE, Batch, Metric, Task, stream

FLOOR_TOKENS = 2**20
"""Tokens of the examples that a floor is measured on, and at least `FLOOR_EXAMPLES`."""
FLOOR_EXAMPLES = 64
_BATCH_TOKENS = 2**16


def example_scores(metric: Metric, predictions: NDArray[Any], batch: Batch) -> NDArray[np.float64]:
    """The metric of each example: `[B]`.

    Args:
        metric: How answers become a score.
        predictions: `[B, T]` tokens, or for `bits_per_byte` log2 probabilities `[B, T, vocab]`.
        batch: What was asked.
    """
    asked = batch.targets != IGNORE
    if metric == "bits_per_byte":
        targets = np.where(asked, batch.targets, 0)[..., None]
        bits = -np.take_along_axis(predictions, targets, axis=-1)[..., 0]
        return (bits * asked).sum(axis=1) / asked.sum(axis=1)
    right = (predictions == batch.targets) & asked
    accuracy = right.sum(axis=1) / asked.sum(axis=1)
    return (accuracy == 1.0).astype(np.float64) if metric == "exact_match" else accuracy


def solver_scores(task: Task[Any], metric: Metric, context: int) -> dict[str, float]:
    """What each solver of a task scores at one context, on a stream of examples of its own."""
    num_examples = max(FLOOR_EXAMPLES, FLOOR_TOKENS // context)
    size = max(1, _BATCH_TOKENS // context)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in task.solvers()}
    for step in range(-(-num_examples // size)):
        batch = task.sample(stream({"floor": context}, task.split, step), size, context)
        for name, solve in task.solvers().items():
            found[name].append(example_scores(metric, solve(batch.inputs), batch))
    return {name: float(np.concatenate(scores).mean()) for name, scores in found.items()}


@functools.cache
def measured_floor(build: Any, config: Any, metric: Metric, context: int) -> float:
    """The score of the best solver on the test split, measured once a process.

    Args:
        build: The task's class.
        config: Its config.
        metric: How answers become a score.
        context: Tokens of an example.
    """
    scores = solver_scores(build(config, "test"), metric, context)
    return min(scores.values()) if metric == "bits_per_byte" else max(scores.values())
