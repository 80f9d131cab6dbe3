"""Associative recall with overwriting: some keys get a second value, and the last one counts.

Source: the forgetting variant of multi-query recall in the code of Arora et al. (2023), "Zoology:
Measuring and improving recall in efficient language models", arXiv:2312.04927. Changed: queries lie
uniformly, and which keys are updated is drawn.
Shapes: B batch, T tokens, N pairs, U updates.
"""

from dataclasses import dataclass

import numpy as np

from lcbench.sampling import ask, distinct
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

FILLER = 0


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How many pairs to remember, and how many of them change."""

    num_pairs: int = 8
    """Pairs of key and value at the start; the task needs four tokens for each."""
    num_updates: int = 4
    """Keys that then get another value; two more tokens for each."""
    vocab_size: int = 64
    """Filler, keys up to the middle, values from there."""

    def __post_init__(self) -> None:
        if self.num_pairs < 2:
            raise ValueError(
                f"num_pairs must be at least 2, got {self.num_pairs}: the last value of a context "
                "would be its answer, whatever is asked"
            )
        if not 1 <= self.num_updates <= self.num_pairs:
            raise ValueError(
                f"num_updates must be in 1..num_pairs ({self.num_pairs}), got {self.num_updates}"
            )
        least = 2 * max(self.num_pairs + 1, self.num_pairs + self.num_updates)
        if self.vocab_size % 2 or self.vocab_size < least:
            raise ValueError(
                f"vocab_size must be even and at least {least} for {self.num_pairs} pairs and "
                f"{self.num_updates} updates, got {self.vocab_size}"
            )


class MQARUpdate(Task[Config]):
    """Distance is counted from the query back to the value that counts."""

    @property
    def vocab_size(self) -> int:
        """Filler, keys and values."""
        return self.config.vocab_size

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw all pairs, then the updated ones again, then each key once at an even offset.

        Raises:
            ValueError: A context below four tokens a pair and two an update.
        """
        num_pairs, num_updates = self.config.num_pairs, self.config.num_updates
        half, first, prefix = self.config.vocab_size // 2, 2 * num_pairs, self._prefix
        if context < prefix + first:
            raise ValueError(
                f"mqar-update with num_pairs={num_pairs} and num_updates={num_updates} needs a "
                f"context of at least {prefix + first}, got {context}; lengthen it, or lower "
                "num_pairs (four tokens each)"
            )
        keys = 1 + distinct(rng, batch, num_pairs, half - 1)  # [B, N]
        values = half + distinct(rng, batch, num_pairs + num_updates, half)
        updated = distinct(rng, batch, num_updates, num_pairs)  # [B, U]
        queries = prefix + 2 * distinct(rng, batch, num_pairs, (context - prefix) // 2)
        inputs = np.full((batch, context), FILLER)
        inputs[:, 0:first:2] = keys
        inputs[:, first:prefix:2] = np.take_along_axis(keys, updated, axis=1)
        inputs[:, 1:prefix:2] = values
        np.put_along_axis(inputs, queries, keys, axis=1)
        latest = np.tile(np.arange(num_pairs), (batch, 1))  # [B, N] which value counts
        np.put_along_axis(latest, updated, np.arange(num_pairs, num_pairs + num_updates), axis=1)
        return ask(inputs, queries, np.take_along_axis(values, latest, axis=1), 1 + 2 * latest)

    def floor(self, context: int) -> float:
        """The better of one guess for all, 1 / N, and never overwriting, (N - U) / N."""
        num_pairs = self.config.num_pairs
        return max(1, num_pairs - self.config.num_updates) / num_pairs

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""
        first, prefix = 2 * self.config.num_pairs, self._prefix

        def read(inputs: IntArray, *bounds: tuple[int, int]) -> IntArray:
            values = np.zeros((len(inputs), self.vocab_size), np.int64)
            for start, end in bounds:
                keys, found = inputs[:, start:end:2], inputs[:, start + 1 : end : 2]
                np.put_along_axis(values, keys, found, axis=1)
            return np.take_along_axis(values, inputs, axis=1)

        return {
            "oracle": lambda inputs: read(inputs, (0, first), (first, prefix)),
            "first-binding": lambda inputs: read(inputs, (0, first)),
            "last-value": lambda inputs: np.broadcast_to(
                inputs[:, prefix - 1 : prefix], inputs.shape
            ),
        }

    def render(self, token: int) -> str:
        """`k7` for a key, `v12` for a value, `·` for filler."""
        if token == FILLER:
            return "·"
        half = self.config.vocab_size // 2
        return f"k{token}" if token < half else f"v{token - half}"

    @property
    def _prefix(self) -> int:
        """Tokens before the first place for a query."""
        return 2 * (self.config.num_pairs + self.config.num_updates)


TASK = TaskSpec(
    build=MQARUpdate,
    config=Config,
    title="Associative recall with overwriting",
    family="recall",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Arora et al. (2023), Zoology, arXiv:2312.04927, the forgetting variant; generated",
    floor_solver=(
        "a reader that never overwrites: right for every key that was not updated; or, where more "
        "than that many are, the last value for every query, right once in num_pairs"
    ),
)
