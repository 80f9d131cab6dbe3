"""Selective copying: tokens scattered among blanks are to be repeated in order, blanks left out.

Source: Gu and Dao (2023), "Mamba: Linear-time sequence modeling with selective state spaces",
arXiv:2312.00752, section 4.1.1, with the sizes of Poli et al. (2024), "Mechanistic design and
scaling of hybrid architectures" (MAD), arXiv:2403.17844.
Shapes: B batch, T tokens, N tokens to copy.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from lcbench.sampling import ask, distinct
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

BLANK, COPY = 0, 1
NUM_MARKS = 2


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How much to copy."""

    num_tokens: int = 16
    """Tokens scattered and asked for; the task needs two places for each."""
    vocab_size: int = 16
    """Blank, the mark that asks, and the kinds of token to copy."""

    def __post_init__(self) -> None:
        if self.num_tokens < 2:
            raise ValueError(f"num_tokens must be at least 2, got {self.num_tokens}")
        if self.vocab_size < NUM_MARKS + 2:
            raise ValueError(f"vocab_size must be at least {NUM_MARKS + 2}, got {self.vocab_size}")


class SelectiveCopy(Task[Config]):
    """Distance is counted from the i-th mark back to the i-th token."""

    @property
    def vocab_size(self) -> int:
        """Blank, mark and the tokens to copy."""
        return self.config.vocab_size

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw N tokens at any places of the first T - N, and N marks after them.

        Raises:
            ValueError: A context below two places a token.
        """
        num_tokens = self.config.num_tokens
        body = context - num_tokens
        if body < num_tokens:
            raise ValueError(
                f"selective-copy with num_tokens={num_tokens} needs a context of at least "
                f"{2 * num_tokens}, got {context}; lengthen it, or lower num_tokens"
            )
        tokens = rng.integers(NUM_MARKS, self.vocab_size, size=(batch, num_tokens))
        places = np.sort(distinct(rng, batch, num_tokens, body), axis=1)
        inputs = np.full((batch, context), BLANK)
        np.put_along_axis(inputs, places, tokens, axis=1)
        inputs[:, body:] = COPY
        marks = np.tile(np.arange(body, context), (batch, 1))
        return ask(inputs, marks, tokens, places)

    def floor(self, context: int) -> float:
        """The most frequent token of the context, at every mark."""
        return _mean_largest_share(self.config.num_tokens, self.vocab_size - NUM_MARKS)

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""
        num_tokens = self.config.num_tokens

        def tokens(inputs: IntArray) -> IntArray:
            return inputs[inputs >= NUM_MARKS].reshape(-1, num_tokens)

        def oracle(inputs: IntArray) -> IntArray:
            predictions = np.zeros_like(inputs)
            predictions[:, -num_tokens:] = tokens(inputs)
            return predictions

        def most_frequent(inputs: IntArray) -> IntArray:
            kinds = np.arange(NUM_MARKS, self.vocab_size)
            counts = (tokens(inputs)[..., None] == kinds).sum(axis=1)
            return np.broadcast_to(kinds[counts.argmax(axis=1)][:, None], inputs.shape)

        return {
            "oracle": oracle,
            "most-frequent": most_frequent,
            "last-token": lambda inputs: np.broadcast_to(tokens(inputs)[:, -1:], inputs.shape),
            "majority": lambda inputs: np.full_like(inputs, NUM_MARKS),
        }

    def render(self, token: int) -> str:
        """`·` for a blank, `=` for the mark, `t3` for a token to copy."""
        return "·" if token == BLANK else "=" if token == COPY else f"t{token - NUM_MARKS}"


@functools.cache
def _mean_largest_share(draws: int, kinds: int) -> float:
    """Mean share of the most frequent of `kinds` equally likely tokens among `draws`, exactly.

    Counts of the kinds are independent Poisson counts given that they sum to `draws`: convolving
    the counts that stay at or below a bound gives the chance that the largest one does.
    """
    rate = draws / kinds
    chances = np.array(
        [math.exp(n * math.log(rate) - rate - math.lgamma(n + 1)) for n in range(draws + 1)]
    )
    sum_chance = math.exp(draws * math.log(draws) - draws - math.lgamma(draws + 1))
    mean_largest = 0.0
    for bound in range(draws):
        sums = np.zeros(draws + 1)
        sums[0] = 1.0
        for _ in range(kinds):
            sums = np.convolve(sums, chances[: bound + 1])[: draws + 1]
        mean_largest += 1 - float(sums[draws]) / sum_chance
    return mean_largest / draws


TASK = TaskSpec(
    build=SelectiveCopy,
    config=Config,
    title="Selective copying",
    family="copying",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Gu and Dao (2023), Mamba, arXiv:2312.00752, section 4.1.1; generated",
    floor_solver="the most frequent token of the context at every mark (its exact expected share)",
)
