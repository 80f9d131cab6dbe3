"""One example of a task in pieces, as a person would read it: for the terminal and for the app."""

import itertools
from typing import Any, Literal, NamedTuple

import numpy as np

from lcbench.task import IGNORE, Batch, Task, stream

SHORTEST = 64
IMAGE_CONTEXT = 1024
_LONGEST_TRY = 6
"""Doublings of the context after which a task is taken to fit nowhere."""

Mark = Literal["", "evidence", "asked"]


class Piece(NamedTuple):
    """A token, or of text the characters that are marked alike."""

    text: str
    mark: Mark = ""
    """`asked` is where an answer is due, `evidence` what it needs."""
    wanted: str = ""
    """The answer due here; empty where nothing is asked, everything is, or in text."""


class Example(NamedTuple):
    """One example of a task."""

    context: int
    pieces: list[Piece]
    is_text: bool
    """Whether tokens are characters that are read as one; others are read each for itself."""
    columns: int | None
    """Tokens of a line, where the example is an image."""
    answers: str
    """What is asked and what the answers are, in a sentence."""


def draw_example(name: str, task: Task[Any], shortest: int = SHORTEST) -> Example:
    """One example of a task, the same each time.

    Args:
        name: The task's name.
        task: Its test split.
        shortest: Tokens to try first, doubled until the task fits; an image has its own.

    Raises:
        ValueError: A task that fits in none of the contexts tried.
    """
    shortest = shortest if task.columns(shortest) is None else IMAGE_CONTEXT
    context = _fitting(task, shortest)
    batch = task.sample(stream({"task": name, "example": True}, "test", 0), 1, context)
    return read_example(task, batch)


def read_example(task: Task[Any], batch: Batch) -> Example:
    """The first example of a batch, with evidence and asked positions marked."""
    inputs, targets = batch.inputs[0], batch.targets[0]
    asked = targets != IGNORE
    evidence = np.zeros_like(asked)
    if batch.distances is not None and not asked.all():
        at = np.nonzero(asked & (batch.distances[0] > 0))[0]
        evidence[at - batch.distances[0][at]] = True
    return Example(
        context=len(inputs),
        pieces=_pieces(task, batch, evidence),
        is_text=task.is_text,
        columns=task.columns(len(inputs)),
        answers=_answers(task, batch),
    )


def _fitting(task: Task[Any], shortest: int) -> int:
    """The shortest context, doubling from `shortest`, that holds an example of the task."""
    for context in (shortest * 2**step for step in range(_LONGEST_TRY)):
        try:
            task.sample(np.random.default_rng(0), 1, context)
        except ValueError:
            continue
        return context
    return shortest


def _pieces(task: Task[Any], batch: Batch, evidence: Any) -> list[Piece]:
    inputs, targets = batch.inputs[0], batch.targets[0]
    asked = targets != IGNORE
    words = [task.render(int(token)) for token in inputs]
    if asked.all():
        return [Piece("".join(words))] if task.is_text else [Piece(word) for word in words]
    marks: list[Mark] = [
        "asked" if is_asked else "evidence" if is_evidence else ""
        for is_asked, is_evidence in zip(asked, evidence, strict=True)
    ]
    if task.is_text:
        same = itertools.groupby(range(len(words)), key=lambda at: marks[at])
        runs = [list(run) for _, run in same]
        return [Piece("".join(words[at] for at in run), marks[run[0]]) for run in runs]
    return [
        Piece(word, mark, task.render(int(target)) if mark == "asked" else "")
        for word, mark, target in zip(words, marks, targets, strict=True)
    ]


def _answers(task: Task[Any], batch: Batch) -> str:
    inputs, targets = batch.inputs[0], batch.targets[0]
    asked = np.nonzero(targets != IGNORE)[0]
    words = [task.render(int(token)) for token in inputs]
    wanted = [task.render(int(token)) for token in targets[asked]]
    is_next = np.array_equal(inputs[asked[:-1] + 1], targets[asked[:-1]])
    if len(asked) == len(targets) and is_next:
        return "Asked everywhere: the next token."
    if task.is_text and is_next and np.all(np.diff(asked) == 1):
        return "Answer: " + "".join(wanted)
    if not task.is_text:
        if len(asked) == len(targets):
            return "Asked everywhere: " + " ".join(wanted)
        runs = [(words[at], answer) for at, answer in zip(asked, wanted, strict=True)]
    else:
        same = itertools.groupby(zip(asked, wanted, strict=True), key=lambda pair: pair[1])
        runs = [("".join(words[at] for at, _ in run), answer) for answer, run in same]
    pairs = ", ".join(f"{word} → {answer}" for word, answer in runs)
    return ("Asked everywhere: " if len(asked) == len(targets) else "Answers: ") + pairs
