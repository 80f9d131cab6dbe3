"""What a model writes by itself, token by token, beside what it should have written.

Scores elsewhere are read with all that stands before an answer being right. Here a model goes on
from its own words: greedily, in one call for the prompt and one a token, carrying its state.
"""

from collections.abc import Iterator
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lcbench.method import State
from lcbench.model import Backbone
from lcbench.task import IGNORE, IntArray, Task
from lcbench.train import (
    OutOfTimeError,
    Reading,
    answers,
    examples,
    mixed_precision,
    to_device,
)

NUM_PASSAGES = 32
"""Passages written, about: examples are taken whole."""
LONGEST = 2
"""How many times as long as what it should write a model may go on without coming to an end."""


class Generation(NamedTuple):
    """Passages that a model wrote, compared with those it should have written."""

    generated_exact_match: float
    """The share that is right to the last token."""
    generated_chrf: float | None
    """Character n-gram F-score of all of them, 0 to 100, by sacrebleu; None where it is missing.
    Popovic (2015), "chrF: character n-gram F-score for automatic MT evaluation", W15-3049."""
    num_generated: int


@torch.no_grad()
def generate(
    model: Backbone,
    task: Task[Any],
    scope: dict[str, Any],
    reading: Reading,
) -> Generation:
    """Let a model write the passages of the first few examples that it is scored on.

    Args:
        model: A trained model of a method that streams.
        task: One with an `end`, of the split to score on.
        scope: Names the random stream, see `task.stream`.
        reading: The examples, and how prompts are read.

    Raises:
        OutOfTimeError: The deadline has passed.
    """
    assert task.end is not None
    model.eval()
    written: list[IntArray] = []
    wanted: list[IntArray] = []
    drawn = examples(task, scope, reading)
    rows = (row for batch in drawn for row in zip(batch.inputs, batch.targets, strict=True))
    for inputs, targets in rows:
        first = int(np.argmax(targets != IGNORE))
        passages = split(targets[first:], task.end)
        room = LONGEST * (len(targets) - first)
        tokens = write(model, inputs[: first + 1], reading)
        own = split(take(tokens, task.end, len(passages), room), task.end)
        # One that does not come to its end within the room has passages left that it never began.
        nothing = np.zeros(0, np.int64)
        written += own + [nothing] * (len(passages) - len(own))
        wanted += passages
        if len(wanted) >= NUM_PASSAGES:
            break
    return compare(task, written, wanted)


def write(model: Backbone, prompt: IntArray, reading: Reading) -> Iterator[int]:
    """The likeliest token after a prompt `[T]`, then the likeliest after that, without end."""
    device = next(model.parameters()).device
    state: State = None
    before, token = prompt[None, :-1], to_device(prompt[-1:], device)
    for start in range(0, before.shape[1], reading.chunk):
        part = to_device(before[:, start : start + reading.chunk], device)
        _, state = _next(model, part, state, reading)
    while True:
        token, state = _next(model, token.view(1, 1), state, reading)
        yield int(token)


def compare(task: Task[Any], written: list[IntArray], wanted: list[IntArray]) -> Generation:
    """Passages as written beside those that were wanted, one for one."""
    right = [np.array_equal(own, other) for own, other in zip(written, wanted, strict=True)]
    texts = ([task.text(passage) for passage in passages] for passages in (written, wanted))
    return Generation(float(np.mean(right)), chrf(*texts), len(wanted))


def chrf(written: list[str], wanted: list[str]) -> float | None:
    """chrF2 of texts, 0 to 100, over all of them; None without sacrebleu, which is optional."""
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        return None
    return float(CHRF().corpus_score(written, [wanted]).score)


def split(tokens: IntArray, end: int) -> list[IntArray]:
    """Tokens `[N]` cut after each `end`; what stands after the last is a passage without one."""
    parts = np.split(tokens, np.flatnonzero(tokens == end) + 1)
    return parts if len(parts[-1]) else parts[:-1]


def take(tokens: Iterator[int], end: int, passages: int, most: int) -> IntArray:
    """Tokens up to the `end` of so many passages, and no more than so many."""
    taken: list[int] = []
    for token in islice(tokens, most):
        taken.append(token)
        passages -= token == end
        if not passages:
            break
    return np.array(taken, np.int64)


def _next(model: Backbone, tokens: Tensor, state: State, reading: Reading) -> tuple[Tensor, State]:
    """The likeliest token after the next `[1, T]`, and the state after these."""
    if monotonic() > reading.deadline:
        raise OutOfTimeError
    with mixed_precision(tokens.device, reading.dtype):
        hidden, state = model(tokens, state)
        last = torch.tensor([tokens.size(1) - 1], device=tokens.device)
        return answers(model, hidden, last).argmax(), state
