"""An example shows what is asked, what it needs and what would be right."""

import itertools

import numpy as np
import pytest

from lcbench import registry
from lcbench.examples import SHORTEST, Example, draw_example, read_example
from lcbench.task import Batch


def example(name: str, shortest: int = SHORTEST, **overrides: str) -> Example:
    spec = registry.load_task(name)
    return draw_example(name, spec.build(spec.config().override(overrides), "test"), shortest)


def test_each_answer_of_recall_is_what_its_evidence_says() -> None:
    pieces = example("mqar").pieces
    keys = {pieces[at - 1].text: piece.text for at, piece in enumerate(pieces)
            if piece.mark == "evidence"}  # fmt: skip
    asked = {piece.text: piece.wanted for piece in pieces if piece.mark == "asked"}
    assert len(asked) == 8
    assert asked == keys


def test_text_is_told_in_runs_that_join_to_the_whole() -> None:
    told = example("code-qa", 256)
    assert told.is_text
    assert told.context == 256
    assert len("".join(piece.text for piece in told.pieces)) >= 256
    marks = [piece.mark for piece in told.pieces]
    assert "asked" in marks
    assert all(one != after for one, after in itertools.pairwise(marks))
    assert told.answers.startswith("Answer: ")


def test_words_of_real_code_are_read_each_for_itself() -> None:
    told = example("code-defs")
    assert not told.is_text
    assert len(told.pieces) == told.context == 64
    asked = [piece for piece in told.pieces if piece.mark == "asked"]
    assert [piece.mark for piece in told.pieces].count("evidence") == len(asked) == 2
    assert all(piece.wanted.startswith("n") for piece in asked)


def test_an_image_knows_its_lines() -> None:
    told = example("pathfinder")
    assert told.columns is not None
    assert told.columns**2 == told.context == len(told.pieces)


def test_an_example_is_the_same_each_time_and_grows_until_the_task_fits() -> None:
    assert example("needle") == example("needle")
    assert example("mqar", num_pairs="40", vocab_size="128").context == 256


def test_where_everything_is_asked_nothing_is_marked() -> None:
    spec = registry.load_task("code-lm")
    task = spec.build(spec.config(), "test")
    inputs = np.frombuffer(b"def f(x):", np.uint8).astype(np.int64)[None]
    told = read_example(task, Batch(inputs[:, :-1], inputs[:, 1:]))
    assert [piece.mark for piece in told.pieces] == [""]
    assert told.answers == "Asked everywhere: the next token."


@pytest.mark.parametrize("name", registry.task_names())
def test_what_is_asked_is_marked_or_told(name: str) -> None:
    told = example(name)
    marked = any(piece.mark == "asked" for piece in told.pieces)
    assert marked != told.answers.startswith("Asked everywhere: ")
