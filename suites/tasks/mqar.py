"""Multi-query associative recall: pairs of key and value, then every key once, far from its pair.

Source: Arora et al. (2023), "Zoology: Measuring and improving recall in efficient language models",
arXiv:2312.04927. Changed: queries lie uniformly by default (`power_a` 1.0; the original's 0.01
keeps them close to the pairs), and the order of the pairs never tells the order of the queries.
Left out: several passes.
Shapes: B batch, T tokens, N pairs.
"""

from dataclasses import dataclass

import numpy as np

from lcbench.sampling import ask, distinct
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

FILLER = 0


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How many pairs to remember, and how long after them a key is asked for."""

    num_pairs: int = 8
    """Pairs of key and value at the start; the task needs four tokens for each."""
    vocab_size: int = 64
    """Filler, keys up to the middle, values from there."""
    power_a: float = 1.0
    """Query slot j has weight j^(a - 1): 1 is uniform, less keeps queries near the pairs."""
    noise: bool = False
    """Fill gaps with ids that are none of the sequence's keys and values, not with filler."""

    def __post_init__(self) -> None:
        if self.num_pairs < 2:
            raise ValueError(
                f"num_pairs must be at least 2, got {self.num_pairs}: the only value of a context "
                "is its answer, whatever is asked"
            )
        if self.vocab_size % 2 or self.vocab_size // 2 <= self.num_pairs:
            raise ValueError(
                f"vocab_size must be even and at least {2 * self.num_pairs + 2} for "
                f"{self.num_pairs} pairs, got {self.vocab_size}"
            )
        if self.power_a <= 0:
            raise ValueError(f"power_a must be above 0, got {self.power_a}")


class MQAR(Task[Config]):
    """Distance is counted from the query back to the value it asks for."""

    @property
    def vocab_size(self) -> int:
        """Filler, keys and values."""
        return self.config.vocab_size

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw `k v k v ...` and, in the rest of the context, each key once at an even offset.

        Raises:
            ValueError: A context below four tokens a pair.
        """
        num_pairs, half = self.config.num_pairs, self.config.vocab_size // 2
        prefix = 2 * num_pairs
        if context < 2 * prefix:
            raise ValueError(
                f"mqar with num_pairs={num_pairs} needs a context of at least {2 * prefix}, "
                f"got {context}; lengthen it, or lower num_pairs (four tokens each)"
            )
        keys = 1 + distinct(rng, batch, num_pairs, half - 1)  # [B, N]
        values = half + distinct(rng, batch, num_pairs, half)
        queries = prefix + 2 * self._slots(rng, batch, (context - prefix) // 2)
        inputs = self._gaps(rng, np.concatenate([keys, values], axis=1), context)
        inputs[:, 0:prefix:2] = keys
        inputs[:, 1:prefix:2] = values
        np.put_along_axis(inputs, queries, keys, axis=1)
        return ask(inputs, queries, values, np.arange(1, prefix, 2))

    def floor(self, context: int) -> float:
        """Any one value of the context, for every query: each is asked once, so 1 / N."""
        return 1 / self.config.num_pairs

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""
        prefix = 2 * self.config.num_pairs

        def oracle(inputs: IntArray) -> IntArray:
            values = np.zeros((len(inputs), self.vocab_size), np.int64)
            np.put_along_axis(values, inputs[:, 0:prefix:2], inputs[:, 1:prefix:2], axis=1)
            return np.take_along_axis(values, inputs, axis=1)

        return {
            "oracle": oracle,
            "first-value": lambda inputs: np.broadcast_to(inputs[:, 1:2], inputs.shape),
            "last-value": lambda inputs: np.broadcast_to(
                inputs[:, prefix - 1 : prefix], inputs.shape
            ),
            "majority": lambda inputs: np.full_like(inputs, self.vocab_size // 2),
        }

    def render(self, token: int) -> str:
        """`k7` for a key, `v12` for a value, `·` for filler."""
        if token == FILLER:
            return "·"
        half = self.config.vocab_size // 2
        return f"k{token}" if token < half else f"v{token - half}"

    def _slots(self, rng: np.random.Generator, batch: int, num_slots: int) -> IntArray:
        """The slot at which each pair is asked, `[B, N]`."""
        num_pairs, power_a = self.config.num_pairs, self.config.power_a
        if power_a == 1.0:
            return distinct(rng, batch, num_pairs, num_slots)
        # The N first arrivals of a race, slot j running at the rate of its weight, are distributed
        # as N weighted draws without replacement.
        weights = np.arange(1, num_slots + 1) ** (power_a - 1)
        arrivals = rng.standard_exponential((batch, num_slots)) / weights
        first = np.argpartition(arrivals, num_pairs - 1, axis=1)[:, :num_pairs]
        return rng.permuted(first, axis=1)

    def _gaps(self, rng: np.random.Generator, used: IntArray, context: int) -> IntArray:
        """What stands where nothing else does, `[B, T]`, avoiding the ids `used` `[B, 2N]`."""
        batch = len(used)
        if not self.config.noise:
            return np.full((batch, context), FILLER)
        is_free = np.ones((batch, self.vocab_size), np.bool_)
        is_free[:, FILLER] = False
        np.put_along_axis(is_free, used, False, axis=1)
        # One flat list of free ids for the batch: taking from it is faster than row by row.
        free = np.flatnonzero(is_free)
        num_free = len(free) // batch
        rows = np.arange(batch)[:, None]
        chosen = rng.integers(num_free, size=(batch, context))
        return free[chosen + rows * num_free] - rows * self.vocab_size


TASK = TaskSpec(
    build=MQAR,
    config=Config,
    title="Multi-query associative recall",
    family="recall",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Arora et al. (2023), Zoology, arXiv:2312.04927; generated",
    floor_solver=(
        "any one value of the context for every query: the first, the last or a random one is "
        "right once in num_pairs; the majority value only once in vocab_size / 2"
    ),
)
