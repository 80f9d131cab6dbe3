"""Fuzzy recall: keys and values are motifs of one to three tokens, and no token is a key alone.

Source: the fuzzy in-context recall of Poli et al. (2024), "Mechanistic design and scaling of hybrid
architectures" (MAD), arXiv:2403.17844. Changed: pairs come first and every key is asked once, at a
place of its own, so that distances spread over the context; the tokens of an answer are asked at
marks, since an answer read back would give its next token away; a motif may repeat a token.
Shapes: B batch, T tokens, N pairs, L longest motif, M answers.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcbench.sampling import ask, distinct, places
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

FILLER, ASK = 0, 1
FIRST_KEY = 2


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How many pairs to remember, and how much their keys have in common."""

    num_pairs: int = 5
    """Pairs of key and value; the task needs `4 * motif - 1` tokens for each."""
    motif: int = 3
    """Most tokens of a key or a value: lengths from one to this are dealt evenly."""
    key_kinds: int = 3
    """Kinds of token in keys; the fewer, the less the last token of a key tells."""
    value_kinds: int = 16
    """Kinds of token in values, none of which stands twice in a context."""
    farthest: int | None = None
    """Most tokens between an answer and its evidence; None is as many as the context has."""

    def __post_init__(self) -> None:
        if self.motif < 2:
            raise ValueError(
                f"motif must be at least 2, got {self.motif}: with one token a key this is mqar"
            )
        if self.num_pairs < 2:
            raise ValueError(
                f"num_pairs must be at least 2, got {self.num_pairs}: the only value of a context "
                "is its answer, whatever is asked"
            )
        fewest = max(
            math.ceil(count ** (1 / length)) for length, count in enumerate(self.of_length, 1)
        )
        if self.key_kinds < fewest:
            raise ValueError(
                f"key_kinds must be at least {fewest} for {self.num_pairs} keys of 1 to "
                f"{self.motif} tokens, got {self.key_kinds}"
            )
        if self.value_kinds < self.num_answers:
            raise ValueError(
                f"value_kinds must be at least {self.num_answers} for {self.num_pairs} values of "
                f"1 to {self.motif} tokens, got {self.value_kinds}"
            )
        if self.farthest is not None and self.farthest < self.fewest_tokens:
            raise ValueError(
                f"farthest must be at least {self.fewest_tokens} for {self.num_pairs} pairs, got "
                f"{self.farthest}"
            )

    @property
    def of_length(self) -> list[int]:
        """Keys, or values, of 1, 2, ... tokens: `[L]`."""
        count, left = divmod(self.num_pairs, self.motif)
        return [count + (length < left) for length in range(self.motif)]

    @property
    def num_answers(self) -> int:
        """Tokens asked for in a context, M."""
        return sum(length * count for length, count in enumerate(self.of_length, 1))

    @property
    def fewest_tokens(self) -> int:
        """Tokens of the pairs and of the queries."""
        return self.num_pairs * (4 * self.motif - 1)


class FuzzyRecall(Task[Config]):
    """Distance is counted from where a token of a value is due back to that token."""

    @property
    def vocab_size(self) -> int:
        """Filler, the mark that asks, and the kinds of token in keys and in values."""
        return FIRST_KEY + self.config.key_kinds + self.config.value_kinds

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw pairs, then each key once in the rest, with marks after it for the longer values.

        Raises:
            ValueError: A context below `4 * motif - 1` tokens a pair.
        """
        config, motif, num_pairs = self.config, self.config.motif, self.config.num_pairs
        if context < config.fewest_tokens:
            raise ValueError(
                f"fuzzy-recall with num_pairs={num_pairs} and motif={motif} needs a context of at "
                f"least {config.fewest_tokens}, got {context}; lengthen it, or lower num_pairs"
            )
        begin, prefix = self._begin(context), 2 * motif * num_pairs
        keys = self._keys(rng, batch)
        # A shuffled 0, 1, 2, ... taken modulo L deals the lengths evenly.
        lengths = 1 + distinct(rng, batch, num_pairs, num_pairs) % motif
        is_value = np.arange(motif) < lengths[..., None]  # [B, N, L]
        values = np.full((batch, num_pairs, motif), FILLER)
        drawn = distinct(rng, batch, config.num_answers, config.value_kinds)
        values[is_value] = FIRST_KEY + config.key_kinds + drawn.ravel()
        starts = (
            begin + prefix + places(rng, batch, num_pairs, 2 * motif - 1, context - begin - prefix)
        )
        starts = rng.permuted(starts, axis=1)[..., None]
        marks = np.where(is_value[..., 1:], ASK, FILLER)
        inputs = np.full((batch, context), FILLER)
        pairs = np.concatenate([keys, values], axis=2)
        inputs[:, begin : begin + prefix] = pairs.reshape(batch, -1)
        asked = np.concatenate([keys, marks], axis=2).reshape(batch, -1)
        at = starts + np.arange(2 * motif - 1)
        np.put_along_axis(inputs, at.reshape(batch, -1), asked, axis=1)
        queries = starts + np.arange(motif - 1, 2 * motif - 1)
        told = begin + np.arange(prefix).reshape(num_pairs, -1)[:, motif:]  # [N, L]
        parts = (queries, values, np.broadcast_to(told, values.shape))
        return ask(inputs, *(part[is_value].reshape(batch, -1) for part in parts))

    def floor(self, context: int) -> float:
        """The value of any key that ends in the same token: the mean of 1 / (keys that do)."""
        kinds, counts = self.config.key_kinds, self.config.of_length
        right = 0.0
        for asked, count in enumerate(counts):
            if not count:
                continue
            # Keys of a length are distinct: how many share the last token is hypergeometric.
            others = np.ones(1)
            for length, number in enumerate(counts):
                own = int(length == asked)
                alike = kinds**length - own
                others = np.convolve(
                    others, _hypergeometric(kinds ** (length + 1) - own, alike, number - own)
                )
            right += count * float(others @ (1 / np.arange(1, len(others) + 1)))
        return right / self.config.num_pairs

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""

        def recall(inputs: IntArray, tokens: int) -> IntArray:
            """The value of the first key that agrees with the asked one in its last `tokens`."""
            begin, motif = self._begin(inputs.shape[1]), self.config.motif
            prefix = inputs[:, begin : begin + 2 * motif * self.config.num_pairs]
            pairs = prefix.reshape(len(inputs), -1, 2 * motif)
            asked, offset = self._asked(inputs, tokens)
            known = self._asked(prefix, tokens)[0][:, motif - 1 :: 2 * motif]
            predictions = np.full_like(inputs, FILLER)
            for pair in reversed(range(self.config.num_pairs)):
                value = np.take_along_axis(pairs[:, pair, motif:], offset, axis=1)
                predictions = np.where(asked == known[:, pair, None], value, predictions)
            return predictions

        def first_value(inputs: IntArray) -> IntArray:
            begin, motif = self._begin(inputs.shape[1]), self.config.motif
            value = inputs[:, begin + motif : begin + 2 * motif]
            return np.take_along_axis(value, self._asked(inputs, 1)[1], axis=1)

        return {
            "oracle": lambda inputs: recall(inputs, self.config.motif),
            "last-token-of-key": lambda inputs: recall(inputs, 1),
            "first-value": first_value,
        }

    def render(self, token: int) -> str:
        """`a`, `b`, ... or `k26` for a token of a key, `12` for one of a value, `?` and `·`."""
        if token < FIRST_KEY:
            return "·?"[token]
        number = token - FIRST_KEY
        if number < self.config.key_kinds:
            return chr(ord("a") + number) if number < 26 else f"k{number}"
        return str(number - self.config.key_kinds)

    def _begin(self, context: int) -> int:
        """Where the first pair stands: filler before it keeps evidence nearer than `farthest`."""
        return context - min(context, self.config.farthest or context)

    def _keys(self, rng: np.random.Generator, batch: int) -> IntArray:
        """Distinct keys in any order, filler to the left of the shorter ones: `[B, N, L]`."""
        kinds, motif = self.config.key_kinds, self.config.motif
        power = kinds ** np.arange(motif)[::-1]
        parts: list[IntArray] = []
        for length, count in enumerate(self.config.of_length, 1):
            numbers = distinct(rng, batch, count, kinds**length)
            motifs = FIRST_KEY + numbers[..., None] // power % kinds
            motifs[..., : motif - length] = FILLER
            parts.append(motifs)
        order = distinct(rng, batch, self.config.num_pairs, self.config.num_pairs)
        return np.take_along_axis(np.concatenate(parts, axis=1), order[..., None], axis=1)

    def _asked(self, inputs: IntArray, tokens: int) -> tuple[IntArray, IntArray]:
        """The last tokens of the key before each position as a number, and marks since it."""
        is_mark, offset = inputs == ASK, np.zeros_like(inputs)
        run = is_mark
        for _ in range(self.config.motif - 1):
            offset += run
            run = is_mark & _shifted(run, 1)
        number, in_key = np.zeros_like(inputs), np.ones(inputs.shape, np.bool_)
        for back in range(tokens):
            token = _shifted(inputs, back) - FIRST_KEY
            in_key &= (token >= 0) & (token < self.config.key_kinds)
            number += np.where(in_key, 1 + token, 0) * (self.config.key_kinds + 1) ** back
        ends = np.maximum(np.arange(inputs.shape[1]) - offset, 0)
        return np.take_along_axis(number, ends, axis=1), offset


def _shifted(array: NDArray[Any], back: int) -> NDArray[Any]:
    """At each position of `[B, T]`, what stands `back` positions before it, or zero."""
    return np.pad(array, ((0, 0), (back, 0)))[:, : array.shape[1]]


def _hypergeometric(total: int, alike: int, draws: int) -> NDArray[np.float64]:
    """Chances of 0, 1, ... of the `alike` among `draws` without replacement from `total`."""
    ways = [math.comb(alike, n) * math.comb(total - alike, draws - n) for n in range(draws + 1)]
    return np.array([way / math.comb(total, draws) for way in ways])


TASK = TaskSpec(
    build=FuzzyRecall,
    config=Config,
    title="Fuzzy recall",
    family="recall",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Poli et al. (2024), MAD, arXiv:2403.17844; generated",
    floor_solver=(
        "the value of the first key that ends in the token the asked key ends in: right once in "
        "as many as there are such keys (exact: their number is hypergeometric)"
    ),
)
