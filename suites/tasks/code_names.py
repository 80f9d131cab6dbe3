"""Names in real code: which one a stretch of it mentions most.

Source: `lcbench.code_words`: the words of real code in their order, keywords and names, without
comments, strings, numbers, operators, `self` and `cls`. The commonest names of a stretch are
renamed anew in every example, so that none can be known; all the others are written as one word.
Names come in clusters, as people use them, so that the end of a stretch suggests an answer and does
not tell it: a name that is everywhere is found by counting all of the context.
Shapes: B batch, T tokens.
"""

from dataclasses import dataclass

import numpy as np

from lcbench.code_words import FIRST_NAME, WORDS, words_in
from lcbench.corpus import load_corpus
from lcbench.floors import measured_floor
from lcbench.sampling import by_frequency
from lcbench.task import IGNORE, Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

NEAR_SHARE = 8
"""The part of a context that the floor's solver reads is the last of so many."""
_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How many names are told apart, and how many are asked for."""

    num_names: int = 16
    """The commonest names of a stretch, which are written each for itself."""
    top: int = 1
    """Ranks asked for, one mark each."""

    def __post_init__(self) -> None:
        if not 1 <= self.top < self.num_names:
            raise ValueError(
                f"top must be in 1..num_names - 1 ({self.num_names - 1}), got {self.top}"
            )


class CodeNames(Task[Config]):
    """The evidence is the whole context, so there are no distances."""

    @property
    def vocab_size(self) -> int:
        """What is no name, the names, the word for all other names, and the marks."""
        return self._other + 1 + self.config.top

    @property
    def _names(self) -> range:
        return range(FIRST_NAME, FIRST_NAME + self.config.num_names)

    @property
    def _other(self) -> int:
        return self._names.stop

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw stretches in which each rank asked for has a name of its own.

        Raises:
            ValueError: A context that holds too few names, or more words than there are.
        """
        words, body = words_in(self.split), context - self.config.top
        inputs = np.empty((batch, context), np.int64)
        targets = np.full_like(inputs, IGNORE)
        row = tries = 0
        while row < batch:
            tries += 1
            if not 0 < body <= len(words) or tries > _TRIES * batch:
                raise ValueError(
                    f"code-names finds no {context:,} tokens in its {self.split} split in which "
                    f"{self.config.top + 1} names stand unlike often; ask for a context of 32 to "
                    f"{len(words):,} tokens, or lower top"
                )
            start = rng.integers(len(words) - body + 1)
            found = self._renamed(rng, words[start : start + body])
            if found is not None:
                inputs[row, :body], targets[row, body:] = found
                row += 1
        inputs[:, body:] = self._other + 1 + np.arange(self.config.top)
        return Batch(inputs, targets)

    def floor(self, context: int) -> float:
        """What the best solver scores on the test split."""
        return measured_floor(CodeNames, self.config, TASK.metric, context)

    def data_hash(self) -> str:
        """SHA-256 over the paths and contents of the library's files."""
        return load_corpus().data_hash

    def solvers(self) -> dict[str, Solver]:
        """Answers that look at the end alone: the last name, and the commonest in the last part."""
        top, names = self.config.top, self._names

        def near(inputs: IntArray) -> IntArray:
            text = inputs[:, :-top]
            predictions = np.zeros_like(inputs)
            end = text[:, -(text.shape[1] // NEAR_SHARE) :]
            predictions[:, -top:] = by_frequency(end, names)[:, :top]
            return predictions

        def last(inputs: IntArray) -> IntArray:
            text = inputs[:, :-top]
            is_told = (text >= names.start) & (text < names.stop)
            at = text.shape[1] - 1 - is_told[:, ::-1].argmax(axis=1)
            return np.broadcast_to(text[np.arange(len(text)), at][:, None], inputs.shape)

        return {"near": near, "last-name": last}

    def render(self, token: int) -> str:
        """The keyword, `¶` before one at the margin, `n7` for a name, `n` for all others, `#1`."""
        if token < FIRST_NAME:
            return WORDS[token]
        if token < self._other:
            return f"n{token - FIRST_NAME}"
        return "n" if token == self._other else f"#{token - self._other}"

    def _renamed(
        self, rng: np.random.Generator, text: IntArray
    ) -> tuple[IntArray, IntArray] | None:
        """A stretch with its names renamed, and its commonest names, or None if they tie."""
        top, number = self.config.top, self.config.num_names
        kinds, places, counts = np.unique(text, return_inverse=True, return_counts=True)
        names = np.flatnonzero(kinds >= FIRST_NAME)
        # Those that stand equally often in no order: which of them are told apart is chance.
        ranked = names[np.argsort(-counts[names] - rng.random(len(names)))][:number]
        leading = counts[ranked[: top + 1]]
        if len(leading) <= top or (leading[:-1] == leading[1:]).any():
            return None
        tokens = np.where(kinds >= FIRST_NAME, self._other, kinds)
        tokens[ranked] = FIRST_NAME + rng.permutation(number)[: len(ranked)]
        return tokens[places], tokens[ranked[:top]]


TASK = TaskSpec(
    build=CodeNames,
    config=Config,
    title="Commonest names in real code",
    family="aggregation",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="the running interpreter's standard library, names renamed in every example",
    floor_solver="the last name, or the commonest one in the last eighth of the context",
    real=True,
)
