"""Compositional recall: keys are pairs of tokens on a full grid, so that neither half decides.

Source: the compositional variant of multi-query recall in the code of Arora et al. (2023),
"Zoology: Measuring and improving recall in efficient language models", arXiv:2312.04927. Changed:
queries lie uniformly, and triples and queries are in no common order.
Shapes: B batch, T tokens, g sides of the grid, N = g * g keys.
"""

from dataclasses import dataclass

import numpy as np

from lcbench.sampling import ask, distinct, places
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

FILLER = 0


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How large the grid is, and of what."""

    grid: int = 3
    """First halves of the keys, and second halves: every pair of them is a key, of five tokens."""
    vocab_size: int = 64
    """Filler, then in equal parts first halves, second halves and values."""
    farthest: int | None = None
    """Most tokens between an answer and its evidence; None is as many as the context has."""

    def __post_init__(self) -> None:
        if self.grid < 2:
            raise ValueError(f"grid must be at least 2, got {self.grid}: else a half is a key")
        if self.third < self.num_keys:
            raise ValueError(
                f"vocab_size must be at least {3 * self.num_keys + 1} for a grid of {self.grid}, "
                f"got {self.vocab_size}"
            )
        if self.farthest is not None and self.farthest < 5 * self.num_keys:
            raise ValueError(
                f"farthest must be at least {5 * self.num_keys} for a grid of {self.grid}, got "
                f"{self.farthest}"
            )

    @property
    def third(self) -> int:
        """Number of first halves, of second halves and of values."""
        return (self.vocab_size - 1) // 3

    @property
    def num_keys(self) -> int:
        """Keys of a context, N."""
        return self.grid**2


class Compositional(Task[Config]):
    """Distance is counted from the second half of an asked key back to its value."""

    @property
    def vocab_size(self) -> int:
        """Filler, halves of keys, and values."""
        return self.config.vocab_size

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw a grid of keys, its triples `k l v` in any order, then each key once in the rest.

        Raises:
            ValueError: A context below five tokens a key.
        """
        grid, num_keys, third = self.config.grid, self.config.num_keys, self.config.third
        if context < 5 * num_keys:
            raise ValueError(
                f"compositional with grid={grid} needs a context of at least {5 * num_keys}, got "
                f"{context}; lengthen it, or lower grid"
            )
        begin, prefix = self._begin(context), 3 * num_keys
        firsts = 1 + distinct(rng, batch, grid, third)
        seconds = 1 + third + distinct(rng, batch, grid, third)
        values = 1 + 2 * third + distinct(rng, batch, num_keys, third)
        cells = distinct(rng, batch, num_keys, num_keys)  # [B, N] of the grid, row by row
        triples = np.stack(
            [
                np.take_along_axis(firsts, cells // grid, axis=1),
                np.take_along_axis(seconds, cells % grid, axis=1),
                values,
            ],
            axis=2,
        )
        starts = places(rng, batch, num_keys, 2, context - begin - prefix)
        queries = begin + prefix + rng.permuted(starts, axis=1)
        inputs = np.full((batch, context), FILLER)
        inputs[:, begin : begin + prefix] = triples.reshape(batch, -1)
        np.put_along_axis(inputs, queries, triples[..., 0], axis=1)
        np.put_along_axis(inputs, queries + 1, triples[..., 1], axis=1)
        return ask(inputs, queries + 1, values, begin + np.arange(2, prefix, 3))

    def floor(self, context: int) -> float:
        """One value for all keys with the same half: right for one in g of them."""
        return 1 / self.config.grid

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""

        def recall(inputs: IntArray, halves: tuple[int, ...]) -> IntArray:
            """The value of the first key that agrees with the asked one in the given halves."""
            begin, prefix = self._begin(inputs.shape[1]), 3 * self.config.num_keys
            triples = inputs[:, begin : begin + prefix].reshape(len(inputs), -1, 3)
            predictions = np.full_like(inputs, FILLER)
            for triple in np.moveaxis(triples, 1, 0)[::-1]:
                agrees = np.ones((len(inputs), inputs.shape[1] - 1), np.bool_)
                for half in halves:
                    tokens = inputs[:, half : inputs.shape[1] - 1 + half]
                    agrees &= tokens == triple[:, half, None]
                predictions[:, 1:] = np.where(agrees, triple[:, 2, None], predictions[:, 1:])
            return predictions

        return {
            "oracle": lambda inputs: recall(inputs, (0, 1)),
            "first-half": lambda inputs: recall(inputs, (0,)),
            "second-half": lambda inputs: recall(inputs, (1,)),
        }

    def render(self, token: int) -> str:
        """`a7` and `b3` for halves of a key, `v12` for a value, `·` for filler."""
        if token == FILLER:
            return "·"
        kind, number = divmod(token - 1, self.config.third)
        # What is left of the vocabulary after three equal parts is never drawn.
        return f"{'abv'[kind]}{number}" if kind < 3 else f"unused{number}"

    def _begin(self, context: int) -> int:
        """Where the first triple stands: filler before it keeps evidence within `farthest`."""
        return context - min(context, self.config.farthest or context)


TASK = TaskSpec(
    build=Compositional,
    config=Config,
    title="Compositional recall",
    family="recall",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Arora et al. (2023), Zoology, arXiv:2312.04927, the compositional variant; generated",
    floor_solver=(
        "the first value whose key agrees in one half: right for exactly one of the grid's keys "
        "with that half, since each is asked once"
    ),
)
