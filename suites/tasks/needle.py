"""Needles in a haystack: pairs of key and value anywhere in noise, asked for at the end.

Source: the single-needle tasks of Hsieh et al. (2024), "RULER: What's the real context size of your
long-context language models?", arXiv:2404.06654, section 3, as tokens: repeated noise is their
first, diverse noise their second and third. Changed: depths are uniform, within bounds if asked
for, and drawn anew for every example, and several keys are hidden, so that a query must be matched
and not just a needle found.
Shapes: B batch, T tokens, N needles.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lcbench.sampling import ask, distinct, places
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

ASK = 0
PERIOD = 16
"""Tokens after which repeated noise says the same again."""


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """What is hidden, and in what."""

    num_needles: int = 4
    """Pairs of key and value; the task needs four tokens for each."""
    vocab_size: int = 64
    """A mark that asks, then in equal parts keys, values and noise."""
    noise: Literal["repeated", "diverse"] = "repeated"
    """One sentence over and over, or every token drawn anew."""
    nearest: int = 2
    """Fewest tokens between an answer and its evidence."""
    farthest: int | None = None
    """Most tokens between an answer and its evidence; None is as many as the context has."""

    def __post_init__(self) -> None:
        if self.num_needles < 2:
            raise ValueError(
                f"num_needles must be at least 2, got {self.num_needles}: the only value of a "
                "context is its answer, whatever is asked"
            )
        if self.third < self.num_needles:
            raise ValueError(
                f"vocab_size must be at least {3 * self.num_needles + 1} for {self.num_needles} "
                f"needles, got {self.vocab_size}"
            )
        if self.nearest < 2:
            raise ValueError(f"nearest must be at least 2, got {self.nearest}")
        least = self.nearest + 4 * self.num_needles - 4
        if self.farthest is not None and self.farthest < least:
            raise ValueError(
                f"farthest must be at least {least} for {self.num_needles} needles no nearer than "
                f"{self.nearest}, got {self.farthest}"
            )

    @property
    def third(self) -> int:
        """Number of keys, and of values."""
        return (self.vocab_size - 1) // 3


class Needle(Task[Config]):
    """Distance is counted from the asked key back to the value of its needle."""

    @property
    def vocab_size(self) -> int:
        """The mark, keys, values and noise."""
        return self.config.vocab_size

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw noise with N needles `k v` in it, then `? k` for each in an order of its own.

        Raises:
            ValueError: A context below four tokens a needle and those that `nearest` keeps free.
        """
        num_needles, third, nearest = (
            self.config.num_needles,
            self.config.third,
            self.config.nearest,
        )
        haystack = context - 2 * num_needles
        begin, end = max(0, context - 2 - (self.config.farthest or context)), haystack + 2 - nearest
        if end < 2 * num_needles:
            raise ValueError(
                f"needle with num_needles={num_needles} and nearest={nearest} needs a context of "
                f"at least {4 * num_needles + nearest - 2}, got {context}; lengthen it, or lower "
                "num_needles or nearest"
            )
        keys = 1 + distinct(rng, batch, num_needles, third)  # [B, N]
        values = 1 + third + distinct(rng, batch, num_needles, third)
        starts = begin + places(rng, batch, num_needles, 2, end - begin)
        asked = distinct(rng, batch, num_needles, num_needles)  # [B, N] which needle, in turn
        inputs = self._noise(rng, batch, context)
        np.put_along_axis(inputs, starts, keys, axis=1)
        np.put_along_axis(inputs, starts + 1, values, axis=1)
        inputs[:, haystack::2] = ASK
        inputs[:, haystack + 1 :: 2] = np.take_along_axis(keys, asked, axis=1)
        queries = np.tile(np.arange(haystack + 1, context, 2), (batch, 1))
        answers, evidence = (np.take_along_axis(x, asked, axis=1) for x in (values, starts + 1))
        return ask(inputs, queries, answers, evidence)

    def floor(self, context: int) -> float:
        """Any one value of the context, for every query: each is asked once, so 1 / N."""
        return 1 / self.config.num_needles

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""
        num_needles, third = self.config.num_needles, self.config.third

        def needles(inputs: IntArray) -> tuple[IntArray, IntArray]:
            haystack = inputs[:, : inputs.shape[1] - 2 * num_needles]
            rows, columns = np.nonzero((haystack >= 1) & (haystack <= third))
            found = haystack[rows, columns], haystack[rows, columns + 1]
            keys, values = (tokens.reshape(-1, num_needles) for tokens in found)
            return keys, values

        def oracle(inputs: IntArray) -> IntArray:
            keys, values = needles(inputs)
            answers = np.zeros((len(inputs), self.vocab_size), np.int64)
            np.put_along_axis(answers, keys, values, axis=1)
            return np.take_along_axis(answers, inputs, axis=1)

        return {
            "oracle": oracle,
            "first-value": lambda inputs: np.broadcast_to(needles(inputs)[1][:, :1], inputs.shape),
            "last-value": lambda inputs: np.broadcast_to(needles(inputs)[1][:, -1:], inputs.shape),
            "majority": lambda inputs: np.full_like(inputs, third + 1),
        }

    def render(self, token: int) -> str:
        """`?` for the mark, `k7` for a key, `v12` for a value, `~3` for noise."""
        if token == ASK:
            return "?"
        kind, number = divmod(token - 1, self.config.third)
        return f"{'kv'[kind]}{number}" if kind < 2 else f"~{token - 1 - 2 * self.config.third}"

    def _noise(self, rng: np.random.Generator, batch: int, context: int) -> IntArray:
        """Tokens that are neither key nor value, `[B, T]`."""
        first = 1 + 2 * self.config.third
        if self.config.noise == "diverse":
            return rng.integers(first, self.vocab_size, size=(batch, context))
        sentence = first + np.arange(context) % min(PERIOD, self.vocab_size - first)
        return np.tile(sentence, (batch, 1))


TASK = TaskSpec(
    build=Needle,
    config=Config,
    title="Needles in a haystack",
    family="recall",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Hsieh et al. (2024), RULER, arXiv:2404.06654, section 3; generated",
    floor_solver=(
        "any one value of the haystack for every query: the first, the last or a random one is "
        "right once in num_needles; the majority value only once in vocab_size / 3"
    ),
)
