"""Frequent words: which words stand most often in the context, the most frequent one first.

Source: frequent words extraction of Hsieh et al. (2024), "RULER: What's the real context size of
your long-context language models?", arXiv:2404.06654, section 3: counts follow Zipf's law, and
filler is more frequent than any word. Changed: every example is shuffled anew (there one pattern of
positions serves all), and the law is flatter, so that no short stretch shows which word leads.
Shapes: B batch, T tokens, W words.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from lcbench.sampling import by_frequency, distinct
from lcbench.task import IGNORE, Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

FILLER = 0


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How many words there are, how unlike their counts, and how many are asked for."""

    num_words: int = 24
    """Kinds of word, W."""
    alpha: float = 0.3
    """The word of rank r is drawn in proportion to `r ** -alpha`."""
    top: int = 1
    """Ranks asked for, one mark each."""

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}: else no word leads")
        if not 1 <= self.top < self.num_words:
            raise ValueError(
                f"top must be in 1..num_words - 1 ({self.num_words - 1}), got {self.top}"
            )


class FrequentWords(Task[Config]):
    """The evidence is the whole context, so there are no distances."""

    @property
    def vocab_size(self) -> int:
        """Filler, the marks and the words."""
        return 1 + self.config.top + self.config.num_words

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw which word has which rank, shuffle the words, and end with a mark for each rank.

        Raises:
            ValueError: A context too short for the ranks asked for to differ in count.
        """
        top, num_words = self.config.top, self.config.num_words
        counts = self._counts(context)
        body = context - top
        if body < counts.sum():
            raise ValueError(
                f"frequent-words with num_words={num_words} and top={top} needs a context of at "
                f"least {self._shortest()}, got {context}; lengthen it, or lower num_words"
            )
        ranks = np.repeat(np.arange(num_words + 1), [*counts, body - counts.sum()])
        words = np.full((batch, num_words + 1), FILLER)
        words[:, :-1] = 1 + top + distinct(rng, batch, num_words, num_words)
        inputs = np.empty((batch, context), np.int64)
        inputs[:, :body] = words[:, ranks]
        rng.permuted(inputs[:, :body], axis=1, out=inputs[:, :body])
        inputs[:, body:] = np.arange(1, 1 + top)
        targets = np.full_like(inputs, IGNORE)
        targets[:, body:] = words[:, :top]
        return Batch(inputs, targets)

    def floor(self, context: int) -> float:
        """The last word of the context at every mark: as likely as that rank is frequent."""
        counts = self._counts(context)
        return float(counts[: self.config.top].mean() / counts.sum())

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""
        top = self.config.top

        def oracle(inputs: IntArray) -> IntArray:
            predictions = np.zeros_like(inputs)
            predictions[:, -top:] = by_frequency(inputs, range(1 + top, self.vocab_size))[:, :top]
            return predictions

        def last_word(inputs: IntArray) -> IntArray:
            back = (inputs[:, ::-1] > top).argmax(axis=1)[:, None]
            word = np.take_along_axis(inputs, inputs.shape[1] - 1 - back, axis=1)
            return np.broadcast_to(word, inputs.shape)

        return {
            "oracle": oracle,
            "last-word": last_word,
            "majority": lambda inputs: np.full_like(inputs, 1 + top),
        }

    def render(self, token: int) -> str:
        """`#1` for the mark that asks for the most frequent word, `w3` for a word, `·`."""
        if token == FILLER:
            return "·"
        top = self.config.top
        return f"#{token}" if token <= top else f"w{token - top - 1}"

    def _counts(self, context: int) -> IntArray:
        """Occurrences by rank, `[W]`: whole, and different for every rank asked for."""
        top, num_words = self.config.top, self.config.num_words
        shares = np.arange(1, num_words + 1) ** -self.config.alpha
        # Filler takes what rounding down leaves.
        counts = np.floor(max(0, context - top) * shares / shares.sum()).astype(np.int64)
        for rank in reversed(range(top)):
            counts[rank] = max(counts[rank], counts[rank + 1] + 1)
        return counts

    def _shortest(self) -> int:
        """The shortest context that holds all counts."""
        return next(n for n in itertools.count(1) if self._counts(n).sum() <= n - self.config.top)


TASK = TaskSpec(
    build=FrequentWords,
    config=Config,
    title="Frequent words",
    family="aggregation",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Hsieh et al. (2024), RULER, arXiv:2404.06654, section 3; generated",
    floor_solver=(
        "the last word of the context at every mark: right as often as words of the ranks asked "
        "for stand in the context (an exact share)"
    ),
)
