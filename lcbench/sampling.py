"""What two or more synthetic tasks draw alike, for a whole batch at once."""

import functools
from typing import Any

import numpy as np

from lcbench.task import IGNORE, Batch, IntArray, Task, TaskConfig, stream

SIMULATED_TOKENS = 2**22
"""Most tokens a simulated floor is the mean over, but for a few hundred long examples."""


def distinct(rng: np.random.Generator, batch: int, count: int, below: int) -> IntArray:
    """Ordered draws without replacement from `range(below)`, row by row: `[batch, count]`.

    Every arrangement is equally likely.

    Raises:
        ValueError: More draws than there are numbers.
    """
    if not 0 <= count <= below:
        raise ValueError(f"cannot draw {count} distinct numbers below {below}")
    # Shuffling takes time in proportion to `below`; drawing again, with the number of repeats.
    if 4 * count > below:
        return rng.permuted(np.tile(np.arange(below), (batch, 1)), axis=1)[:, :count]
    drawn = rng.integers(below, size=(batch, count))
    # Only repeats are drawn again, found without regard to which number it is. So renaming the
    # numbers renames the outcome, and every arrangement of distinct numbers is equally likely.
    rows, columns = _repeats(drawn)
    while len(rows):
        drawn[rows, columns] = rng.integers(below, size=len(rows))
        touched = np.unique(rows)
        within, columns = _repeats(drawn[touched])
        rows = touched[within]
    return drawn


def places(rng: np.random.Generator, batch: int, count: int, width: int, room: int) -> IntArray:
    """Starts of `count` blocks of `width` tokens in `room` tokens, in order: `[batch, count]`.

    No two blocks overlap, and every layout is equally likely.

    Raises:
        ValueError: Blocks that do not fit in the room.
    """
    # A block counted as one place instead of `width` tokens.
    starts = np.sort(distinct(rng, batch, count, room - count * (width - 1)), axis=1)
    return starts + np.arange(count) * (width - 1)


def ask(inputs: IntArray, queries: IntArray, answers: IntArray, evidence: IntArray) -> Batch:
    """A batch that is scored at its queries alone.

    Args:
        inputs: `[B, T]` tokens.
        queries: `[B, N]` positions at which an answer is wanted.
        answers: `[B, N]` tokens wanted there.
        evidence: `[B, N]` or `[N]`, the positions that tell them.
    """
    targets = np.full_like(inputs, IGNORE)
    np.put_along_axis(targets, queries, answers, axis=1)
    distances = np.zeros_like(inputs)
    np.put_along_axis(distances, queries, queries - evidence, axis=1)
    return Batch(inputs, targets, distances)


def by_frequency(inputs: IntArray, among: range) -> IntArray:
    """Tokens of a range, those first that stand most often in a row: `[B, len(among)]`.

    Of two that stand equally often the smaller comes first.
    """
    counts = [(inputs == token).sum(axis=1) for token in among]
    return among.start + np.argsort(-np.stack(counts, axis=1), axis=1, kind="stable")


def simulated_floor(task: Task[Any], context: int, examples: int = 2**13) -> float:
    """Accuracy of the best of a task's trivial solvers, where no formula gives it.

    It is a mean over at most so many examples of a stream of its own, the same for every split, and
    found once for a config and a context.
    """
    return _simulated_floor(type(task), task.config, context, examples)


@functools.cache
def _simulated_floor(build: type[Task[Any]], config: TaskConfig, context: int, most: int) -> float:
    task = build(config, "validation")
    rng = stream({"floor": build.__name__}, "validation", 0)
    found: dict[str, list[float]] = {}
    examples = min(most, max(256, SIMULATED_TOKENS // context))
    size = max(1, min(examples, 2**20 // context))
    for _ in range(0, examples, size):
        inputs, targets, _ = task.sample(rng, size, context)
        asked = targets != IGNORE
        for name, solve in task.solvers().items():
            if name != "oracle":
                right = (solve(inputs) == targets) & asked
                found.setdefault(name, []).append(float(right.sum() / asked.sum()))
    return max(sum(scores) / len(scores) for scores in found.values())


def _repeats(drawn: IntArray) -> tuple[IntArray, IntArray]:
    """Rows and columns of numbers that stand farther left in their row too."""
    count = drawn.shape[1]
    columns = np.arange(count, dtype=np.int64)
    ordered: IntArray = np.multiply(drawn, count) + columns
    ordered.sort(axis=1)
    numbers = ordered // count
    rows, places = np.nonzero(numbers[:, 1:] == numbers[:, :-1])
    return rows, ordered[rows, places + 1] % count
