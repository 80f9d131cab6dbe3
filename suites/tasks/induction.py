"""Induction: a mark stands once in random tokens and again at the end; say what followed it.

Source: Fu et al. (2022), "Hungry Hungry Hippos: Towards language modeling with state space models",
arXiv:2212.14052, section 3.1; Gu and Dao (2023), "Mamba: Linear-time sequence modeling with
selective state spaces", arXiv:2312.00752, section 4.1.2, train at 256 tokens and test to a million.
Changed: tokens are dealt evenly, so that no token of the context is a better guess than another.
"""

from dataclasses import dataclass

import numpy as np

from lcbench.sampling import ask
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

MARK = 0


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How many kinds of token there are."""

    vocab_size: int = 16
    """The mark and the tokens around it."""

    def __post_init__(self) -> None:
        if self.vocab_size < 3:
            raise ValueError(f"vocab_size must be at least 3, got {self.vocab_size}")


class Induction(Task[Config]):
    """Distance is counted from the second mark back to the token after the first."""

    @property
    def vocab_size(self) -> int:
        """The mark and the tokens around it."""
        return self.config.vocab_size

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw T - 2 tokens with one mark before any of them and one at the end.

        Raises:
            ValueError: A context below four tokens.
        """
        if context < 4:
            raise ValueError(f"induction needs a context of at least 4, got {context}; lengthen it")
        inputs = np.full((batch, context), MARK)
        tokens = inputs[:, 1:-1]
        tokens[:] = 1 + np.arange(context - 2) % (self.vocab_size - 1)
        rng.permuted(tokens, axis=1, out=tokens)
        # The mark trades places with a token: of shuffled tokens none notices that one moved.
        rows, marks = np.arange(batch), rng.integers(context - 2, size=batch)
        inputs[rows, 0] = inputs[rows, marks]
        inputs[rows, marks] = MARK
        queries = np.full((batch, 1), context - 1)
        return ask(inputs, queries, inputs[rows, marks + 1][:, None], marks[:, None] + 1)

    def floor(self, context: int) -> float:
        """The share of the most frequent token; the first kind is always one of those."""
        tokens, kinds = context - 2, self.vocab_size - 1
        return -(-tokens // kinds) / tokens

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""

        def oracle(inputs: IntArray) -> IntArray:
            after = 1 + (inputs == MARK).argmax(axis=1)
            return np.broadcast_to(np.take_along_axis(inputs, after[:, None], axis=1), inputs.shape)

        return {
            "oracle": oracle,
            "most-frequent": lambda inputs: np.full_like(inputs, 1),
            "last-token": lambda inputs: np.broadcast_to(inputs[:, -2:-1], inputs.shape),
        }

    def render(self, token: int) -> str:
        """`!` for the mark, `t3` for a token."""
        return "!" if token == MARK else f"t{token}"


TASK = TaskSpec(
    build=Induction,
    config=Config,
    title="Induction",
    family="recall",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Fu et al. (2022), H3, arXiv:2212.14052, section 3.1; generated",
    floor_solver="the most frequent token of the context (an exact share: tokens are dealt evenly)",
)
