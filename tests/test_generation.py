"""What a model writes by itself, and what it is compared with."""

import itertools
import math
import sys
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcbench import registry
from lcbench import train as training
from lcbench.generation import (
    LONGEST,
    NUM_PASSAGES,
    Generation,
    chrf,
    compare,
    generate,
    split,
    take,
    write,
)
from lcbench.method import Method, ModelShape
from lcbench.model import Backbone
from lcbench.suite import ModelPlan
from lcbench.task import IGNORE, Batch, Split, Task, TaskConfig
from lcbench.train import OutOfTimeError, Reading

END = 7
SCOPE: dict[str, Any] = {"suite": ["for-tests", 1], "task": ["count", 1, "{}"], "seed": 0}
READING = Reading(context=16, num_examples=40, dtype=torch.float32, chunked=True)


class Count(Task[TaskConfig]):
    """Two passages after a digit: those that follow it, and those that follow the first `END`."""

    vocab_size = 8
    end = END

    def __init__(self, split: Split = "test") -> None:
        super().__init__(TaskConfig(), split)

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        inputs = np.zeros((batch, context), np.int64)
        targets = np.full_like(inputs, IGNORE)
        for row, first in enumerate(rng.integers(4, 7, size=batch)):
            answer = [*range(first + 1, END + 1), 0, 1, 2, 3, 4, 5, 6, END]
            inputs[row, -len(answer) :] = [first, *answer[:-1]]
            targets[row, -len(answer) :] = answer
        return Batch(inputs, targets)


class Successor(nn.Module):
    """A model that says the number after the last, and remembers nothing but how many it read."""

    def __init__(self, step: int = 1) -> None:
        super().__init__()
        self.step, self.calls = step, list[int]()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.calls.append(tokens.size(1))
        assert (state is None) == (len(self.calls) == 1 or tokens.size(1) > 1)
        hidden = torch.nn.functional.one_hot((tokens + self.step) % 8, 8).float()
        return hidden, torch.zeros(())

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def test_a_model_that_goes_on_as_it_should_is_right() -> None:
    model: Any = Successor()
    found = generate(model, Count(), SCOPE, READING)
    assert found == Generation(1.0, pytest.approx(100.0), NUM_PASSAGES)
    assert sum(tokens > 1 for tokens in model.calls) == NUM_PASSAGES // 2  # two to a prompt


def test_a_model_that_never_ends_is_stopped_and_has_written_less() -> None:
    model: Any = Successor(step=2)  # from an even digit it never comes to the odd `END`
    found = generate(model, Count(), SCOPE, READING)
    assert found.generated_exact_match < 1
    assert found.num_generated == NUM_PASSAGES
    longest = LONGEST * max(int((row != IGNORE).sum()) for row in Count().sample(
        np.random.default_rng(0), 50, 16).targets)  # fmt: skip
    written = [
        len(list(g)) for is_one, g in itertools.groupby(model.calls, lambda n: n == 1) if is_one
    ]
    assert max(written) == longest


def test_the_clock_is_looked_at() -> None:
    model: Any = Successor()
    with pytest.raises(OutOfTimeError):
        generate(model, Count(), SCOPE, READING._replace(deadline=-math.inf))


@pytest.mark.parametrize("name", ["vanilla", "recurrence", "gated-delta-net"])
def test_carrying_the_state_writes_what_reading_all_again_would(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(training, "EVALUATION_TOKENS", 4)
    spec = registry.load_method(name)

    def build(shape: ModelShape) -> Method:
        return spec.build(shape, spec.config())

    model = Backbone(
        ModelPlan(d_model=16, num_layers=2, num_heads=2), 8, build, train_context=16, seed=0
    )
    tokens = [1, 5, 2, 0, 3, 6, 4]
    # Two calls for the prompt; a call needs no gradients, as in `generate`.
    with torch.no_grad():
        for token in islice(write(model, np.array(tokens), READING), 20):
            hidden, _ = model(torch.tensor([tokens]))
            assert int(model.head(hidden[0, -1]).argmax()) == token
            tokens.append(token)
    assert len(set(tokens[7:])) > 1


def test_passages_end_where_their_end_is() -> None:
    assert [p.tolist() for p in split(np.array([1, 7, 7, 2]), 7)] == [[1, 7], [7], [2]]
    assert [p.tolist() for p in split(np.array([1, 7]), 7)] == [[1, 7]]
    assert split(np.zeros(0, np.int64), 7) == []
    assert take(iter([1, 7, 2, 7, 3]), 7, 2, 9).tolist() == [1, 7, 2, 7]
    assert take(itertools.repeat(1), 7, 2, 5).tolist() == [1] * 5


def test_chrf_is_the_mean_of_n_gram_precision_and_recall() -> None:
    written, wanted = ["the cat sat on a mat", "a dog"], ["the cat sat on the mat", "no dog here"]
    precision, recall = [], []
    for n in range(1, 7):
        grams = [
            [Counter(t[i : i + n] for i in range(len(t) - n + 1)) for t in map(_close, texts)]
            for texts in (written, wanted)
        ]
        matched = sum(sum((a & b).values()) for a, b in zip(*grams, strict=True))
        precision.append(matched / sum(g.total() for g in grams[0]))
        recall.append(matched / sum(g.total() for g in grams[1]))
    p, r = np.mean(precision), np.mean(recall)
    assert chrf(written, wanted) == pytest.approx(100 * 5 * p * r / (4 * p + r))


def _close(text: str) -> str:
    return text.replace(" ", "")


def test_without_sacrebleu_there_is_no_chrf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.chrf", None)
    same = [np.array([1, END])]
    assert compare(Count(), same, same) == Generation(1.0, None, 1)
