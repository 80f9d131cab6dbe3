"""Definitions in real code: one is named again, and asked is what followed its name there.

Source: `lcbench.code_words`: the words of real code in their order, keywords and names, without
comments, strings, numbers, operators, `self` and `cls`. After `def f` mostly stands the first
parameter, after `class C` the base. A context is a stretch of it that has a few definitions at the
left margin, as people spread them, and ends by asking about some. Names are renamed anew in every
example, so that an answer can be read and not be known. Methods are defined by other marks and not
asked about; a name may be used before and after it is defined; two names that got one number are
told apart by nobody.
Shapes: B batch, T tokens, M definitions of a text, N of them asked about.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcbench.code_words import FIRST_NAME, MARKS, WORDS, words_in
from lcbench.corpus import load_corpus
from lcbench.floors import measured_floor
from lcbench.sampling import ask
from lcbench.task import Batch, IntArray, Solver, Split, Task, TaskConfig, TaskSpec

NAMED, TOLD = 1, 2
"""Where in `def f x` stand the name and the answer."""
ROOM = 64
"""Tokens of context for each question; a context of few asks `FEWEST`."""
FEWEST = 2
_PRIME = 2**31 - 1
_TRIES = 1000
"""Stretches drawn for an example before none is taken to fit: of long ones a twelfth do."""


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How much is asked, and how many names there are."""

    num_questions: int = 4
    """Definitions asked about, one for each 64 tokens; but two in a shorter context."""
    most_others: int | None = 2
    """Most definitions of a context that are not asked about; None for any number. With few, a long
    context is no harder than a short one but for its length."""
    num_names: int = 64
    """Numbers that names are given."""

    def __post_init__(self) -> None:
        if self.num_questions < FEWEST:
            raise ValueError(
                f"num_questions must be at least {FEWEST}, got {self.num_questions}: the only "
                "answer of a context needs no looking for"
            )
        if self.most_others is not None and self.most_others < 0:
            raise ValueError(f"most_others must be at least 0, got {self.most_others}")
        if self.num_names < 2 * self.num_questions:
            raise ValueError(
                f"num_names must be at least {2 * self.num_questions} for {self.num_questions} "
                f"questions, got {self.num_names}"
            )


class CodeDefs(Task[Config]):
    """Asked are names that are defined once; distance is that back to what followed the name."""

    @property
    def vocab_size(self) -> int:
        """What is no name, and the names."""
        return FIRST_NAME + self.config.num_names

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw stretches with enough definitions, rename their names, and ask about some of them.

        Raises:
            ValueError: A context that no stretch fits, or with too many names for their numbers.
        """
        number = self._questions(context)
        body = context - 2 * number
        starts = _starts(self.split, body, number, self.config.most_others)
        if not len(starts):
            raise ValueError(
                f"code-defs finds no {context:,} tokens in its {self.split} split that hold "
                f"{number} definitions and at most {self.config.most_others} more; ask for a "
                "context of 32 to 4,096 tokens, or for most_others=None"
            )
        inputs = np.empty((batch, context), np.int64)
        asked = np.empty((batch, number), np.int64)
        left = np.arange(batch)
        for _ in range(_TRIES):
            chosen = starts[rng.integers(len(starts), size=len(left))]
            text = self._renamed(rng, chosen, body)
            places, are_enough = self._pick(rng, chosen, text, number)
            inputs[left[are_enough], :body] = text[are_enough]
            asked[left[are_enough]] = places[are_enough]
            left = left[~are_enough]
            if not len(left):
                break
        else:
            raise ValueError(
                f"code-defs with num_names={self.config.num_names} finds too few names defined "
                f"once in {context:,} tokens; raise num_names"
            )
        queries = body + 2 * np.arange(number) + NAMED
        inputs[:, queries - NAMED] = np.take_along_axis(inputs, asked, axis=1)
        inputs[:, queries] = np.take_along_axis(inputs, asked + NAMED, axis=1)
        answers = np.take_along_axis(inputs, asked + TOLD, axis=1)
        return ask(inputs, np.tile(queries, (batch, 1)), answers, asked + TOLD)

    def floor(self, context: int) -> float:
        """What the best solver scores on the test split."""
        return measured_floor(CodeDefs, self.config, TASK.metric, context)

    def data_hash(self) -> str:
        """SHA-256 over the paths and contents of the library's files."""
        return load_corpus().data_hash

    def solvers(self) -> dict[str, Solver]:
        """Answers that do not look the name up: what follows the last name, or most names."""
        return {"last-definition": self._last, "commonest": self._commonest}

    def render(self, token: int) -> str:
        """The keyword, `¶` before one at the margin, or `n7` for a name."""
        return WORDS[token] if token < FIRST_NAME else f"n{token - FIRST_NAME}"

    def _questions(self, context: int) -> int:
        return min(self.config.num_questions, max(FEWEST, context // ROOM))

    def _renamed(self, rng: np.random.Generator, starts: IntArray, body: int) -> IntArray:
        """The text from each start, with names as numbers of its own: `[B, body]`."""
        text = np.lib.stride_tricks.sliding_window_view(words_in(self.split), body)[starts]
        # Linear modulo a prime: names that differ get numbers that differ as if drawn.
        factor = rng.integers(1, _PRIME, size=(len(starts), 1))
        offset = rng.integers(_PRIME, size=(len(starts), 1))
        names = (text * factor + offset) % _PRIME % self.config.num_names
        return np.where(text < FIRST_NAME, text, FIRST_NAME + names)

    def _pick(
        self, rng: np.random.Generator, starts: IntArray, text: IntArray, number: int
    ) -> tuple[IntArray, NDArray[np.bool_]]:
        """Definitions to ask about, `[B, N]` in no order, and whether a text has so many: `[B]`."""
        found = _definitions(self.split)
        ends = starts + text.shape[1] - TOLD
        first, last = np.searchsorted(found, starts), np.searchsorted(found, ends)
        columns = first[:, None] + np.arange(max(number, (last - first).max()))
        inside = columns < last[:, None]
        places = np.where(inside, found[np.minimum(columns, len(found) - 1)] - starts[:, None], 0)
        # What stands outside of the text is like nothing in it.
        missing = -1 - np.arange(columns.shape[1])
        names, answers = (
            np.where(inside, np.take_along_axis(text, places + offset, axis=1), missing)
            for offset in (NAMED, TOLD)
        )
        # What several definitions tell alike is soon guessed.
        can_ask = inside & _is_single(names) & _is_single(answers) & (answers >= FIRST_NAME)
        order = np.argsort(rng.random(places.shape) + ~can_ask, axis=1)[:, :number]
        chosen = rng.permuted(np.take_along_axis(places, order, axis=1), axis=1)
        return chosen, can_ask.sum(axis=1) >= number

    def _told(self, inputs: IntArray) -> IntArray:
        """What follows the name of each definition in the text, else -1: `[B, body - 2]`."""
        text = inputs[:, : inputs.shape[1] - 2 * self._questions(inputs.shape[1])]
        is_told = (text[:, :-TOLD] < len(MARKS)) & (text[:, TOLD:] >= FIRST_NAME)
        return np.where(is_told, text[:, TOLD:], -1)

    def _last(self, inputs: IntArray) -> IntArray:
        told = self._told(inputs)
        last = told.shape[1] - 1 - (told[:, ::-1] >= 0).argmax(axis=1)
        return np.broadcast_to(np.take_along_axis(told, last[:, None], axis=1), inputs.shape)

    def _commonest(self, inputs: IntArray) -> IntArray:
        told, size = self._told(inputs), self.vocab_size
        rows, columns = np.nonzero(told >= 0)
        counts = np.bincount(rows * size + told[rows, columns], minlength=len(told) * size)
        return np.broadcast_to(counts.reshape(-1, size).argmax(axis=1)[:, None], inputs.shape)


def _is_single(tokens: IntArray) -> NDArray[np.bool_]:
    """Whether no other token of its row is the same: `[B, M]`."""
    order = np.argsort(tokens, axis=1)
    ranked = np.take_along_axis(tokens, order, axis=1)
    differs = np.ones((len(tokens), tokens.shape[1] + 1), np.bool_)
    differs[:, 1:-1] = ranked[:, 1:] != ranked[:, :-1]
    single = np.empty_like(differs[:, 1:])
    np.put_along_axis(single, order, differs[:, 1:] & differs[:, :-1], axis=1)
    return single


@functools.cache
def _definitions(split: Split) -> IntArray:
    """Where in the words of a split `def f x` begins, for all f and x."""
    words = words_in(split)
    is_named = words[NAMED : NAMED - TOLD] >= FIRST_NAME
    return np.flatnonzero((words[:-TOLD] < len(MARKS)) & is_named)


@functools.lru_cache(maxsize=32)
def _starts(split: Split, body: int, number: int, most_others: int | None) -> IntArray:
    """Where stretches of `body` words begin that hold so many definitions, and few more."""
    words, found = words_in(split), _definitions(split)
    starts = np.arange(max(0, len(words) - body + 1))
    count = np.searchsorted(found, starts + body - TOLD) - np.searchsorted(found, starts)
    most = len(found) if most_others is None else number + most_others
    return np.flatnonzero((count >= number) & (count <= most))


TASK = TaskSpec(
    build=CodeDefs,
    config=Config,
    title="Definitions in real code",
    family="reading",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="the running interpreter's standard library, names renamed in every example",
    floor_solver="what followed the name last defined, or most of the names defined",
    real=True,
)
