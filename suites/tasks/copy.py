"""Copying: random tokens, a mark, and the same tokens again, each to be foretold.

Source: the copy task of Jelassi et al. (2024), "Repeat after me: Transformers are better than state
space models at copying", arXiv:2402.01032: how much a fixed state can hold. Changed: the tokens
stand anywhere before the mark, so that their distance from the copy spreads over the context.
Shapes: B batch, T tokens, N tokens to copy.
"""

from dataclasses import dataclass

import numpy as np

from lcbench.task import IGNORE, Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

BLANK, COPY = 0, 1
NUM_MARKS = 2


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How much to copy."""

    num_tokens: int | None = None
    """Tokens to copy, of two places each; None is half the context."""
    vocab_size: int = 64
    """Blank, mark, and kinds of token: the fewer, the less the last token tells of the next."""

    def __post_init__(self) -> None:
        if self.num_tokens is not None and self.num_tokens < 3:
            raise ValueError(f"num_tokens must be at least 3, got {self.num_tokens}")
        if self.vocab_size < NUM_MARKS + 2:
            raise ValueError(f"vocab_size must be at least {NUM_MARKS + 2}, got {self.vocab_size}")


class Copy(Task[Config]):
    """Distance is counted from where a token is due back to its first appearance."""

    @property
    def vocab_size(self) -> int:
        """Blank, mark and the tokens to copy."""
        return self.config.vocab_size

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw N tokens somewhere, then at the end the mark and all of them but the last.

        Raises:
            ValueError: A context below two places a token.
        """
        num_tokens = self._num_tokens(context)
        if context < 2 * num_tokens:
            raise ValueError(
                f"copy with num_tokens={self.config.num_tokens} needs a context of at least "
                f"{2 * num_tokens}, got {context}; lengthen it, or lower num_tokens"
            )
        tokens = rng.integers(NUM_MARKS, self.vocab_size, size=(batch, num_tokens))
        starts = rng.integers(context - 2 * num_tokens + 1, size=batch)
        inputs = np.full((batch, context), BLANK)
        # Whole stretches are written at once: places one by one would take several times as long.
        stretches = np.lib.stride_tricks.sliding_window_view(
            inputs, num_tokens, axis=1, writeable=True
        )
        stretches[np.arange(batch), starts] = tokens
        inputs[:, -num_tokens] = COPY
        inputs[:, context - num_tokens + 1 :] = tokens[:, :-1]
        targets, distances = np.full_like(inputs, IGNORE), np.zeros_like(inputs)
        targets[:, -num_tokens:] = tokens
        distances[:, -num_tokens:] = (context - num_tokens - starts)[:, None]
        return Batch(inputs, targets, distances)

    def floor(self, context: int) -> float:
        """What followed the first occurrence of the last token: exact, for independent tokens."""
        kinds = self.vocab_size - NUM_MARKS
        # The mark asks for the first token. The i-th is the first of its kind with this chance,
        # and what follows it is then right; else what follows another is, by luck.
        is_first = (1 - 1 / kinds) ** np.arange(self._num_tokens(context) - 1)
        right = 1 + float(np.sum(is_first + (1 - is_first) / kinds))
        return right / self._num_tokens(context)

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""

        def oracle(inputs: IntArray) -> IntArray:
            tokens = self._tokens(inputs)
            predictions = np.zeros_like(inputs)
            predictions[:, -tokens.shape[1] :] = tokens
            return predictions

        def after_last(inputs: IntArray) -> IntArray:
            tokens = self._tokens(inputs)
            follower = np.zeros((len(inputs), self.vocab_size), np.int64)
            follower[:, COPY] = tokens[:, 0]
            # Of several values put at one place the last one stays: the first occurrence.
            backwards = tokens[:, ::-1]
            np.put_along_axis(follower, backwards[:, 1:], backwards[:, :-1], axis=1)
            return np.take_along_axis(follower, inputs, axis=1)

        return {
            "oracle": oracle,
            "after-the-last-token": after_last,
            "last-token": lambda inputs: np.broadcast_to(
                self._tokens(inputs)[:, -1:], inputs.shape
            ),
            "majority": lambda inputs: np.full_like(inputs, NUM_MARKS),
        }

    def render(self, token: int) -> str:
        """`·` for a blank, `=` for the mark, `t3` for a token to copy."""
        return "·" if token == BLANK else "=" if token == COPY else f"t{token - NUM_MARKS}"

    def _num_tokens(self, context: int) -> int:
        return self.config.num_tokens or max(3, context // 2)

    def _tokens(self, inputs: IntArray) -> IntArray:
        """The tokens to copy, `[B, N]`, read where they stand first."""
        num_tokens = self._num_tokens(inputs.shape[1])
        before = inputs[:, :-num_tokens]
        return before[before != BLANK].reshape(-1, num_tokens)


TASK = TaskSpec(
    build=Copy,
    config=Config,
    title="Copying",
    family="copying",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Jelassi et al. (2024), arXiv:2402.01032; generated",
    floor_solver=(
        "what followed the first occurrence of the last token, so that tokens are never matched "
        "by more than one (exact, for independent tokens)"
    ),
)
