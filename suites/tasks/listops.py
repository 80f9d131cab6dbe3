"""ListOps: the value of a nested list of minima, maxima, medians and sums.

Source: the ListOps task of Tay et al. (2020), "Long Range Arena: A benchmark for efficient
transformers", arXiv:2011.04006, after Nangia and Bowman (2018), arXiv:1804.06028: the grammar of
their generator and, at a context of 2,000, its lengths, from a quarter of the context to all of it.
Changed: other contexts have lengths in the same proportion, beyond 2,000 in deeper trees; filler
stands before the list, and the value is asked for at its last bracket.
Shapes: B batch, T tokens; at one level of all trees: t trees, n nodes, m operators.
"""

import functools
import math
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcbench.sampling import simulated_floor
from lcbench.task import IGNORE, Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

FILLER, MIN, MAX, MED, SUM, CLOSE = range(10, 16)
"""The digits are tokens 0 to 9."""
NAMES = ("·", "[min", "[max", "[med", "[sum", "]")
GUESSES = np.array([0, 9, 4, 4])
"""What is expected of each operator whose arguments are not read."""
OPERATOR_SHARE = 1 / 4
"""Of the nodes above the deepest level; drawn as two fair bits."""
MOST_ARGUMENTS = 10
GROWTH = OPERATOR_SHARE * (2 + MOST_ARGUMENTS) / 2
"""Operators of a level for each of the level above."""
LRA_CONTEXT, LRA_DEPTH = 2000, 10
SHORTEST_CONTEXT = 8
PILOT = 512
"""Roots from which the share of trees of the right length is told."""


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How deep the lists are nested."""

    max_depth: int = LRA_DEPTH
    """Levels of a tree, digits included; more where no tree of so few would fill the context."""

    def __post_init__(self) -> None:
        if self.max_depth < 2:
            raise ValueError(f"max_depth must be at least 2, got {self.max_depth}")


class _Level(NamedTuple):
    """Nodes of many trees at one depth, from left to right; children follow in the next level."""

    tree: IntArray
    """`[t]` the trees that are so deep, in order."""
    width: IntArray
    """`[t]` nodes of each."""
    operators: IntArray
    """`[t]` operators of each."""
    bits: NDArray[np.uint8]
    """Whether a node is an operator, a bit each from the highest on; each tree begins a byte."""
    arity: NDArray[np.uint8]
    """`[m]` arguments of each operator."""


class _Forest(NamedTuple):
    """Trees of the right length, their levels laid end to end from the roots down."""

    is_operator: NDArray[np.bool_]
    """`[n]` whether a node is an operator or a digit."""
    arity: IntArray
    """`[m]` arguments of each operator."""
    operators: IntArray
    """Operators of each level; those of the first are the roots."""


class ListOps(Task[Config]):
    """The evidence is the whole list, so there are no distances."""

    @property
    def vocab_size(self) -> int:
        """Digits, filler, operators and the bracket that closes them."""
        return CLOSE + 1

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw trees longer than a quarter of the context and shorter than all of it.

        Raises:
            ValueError: A context below eight tokens.
        """
        if context < SHORTEST_CONTEXT:
            raise ValueError(
                f"listops needs a context of at least {SHORTEST_CONTEXT}, got {context}; "
                "lengthen it"
            )
        inputs = np.full((batch, context), FILLER)
        targets = np.full_like(inputs, IGNORE)
        depth, done = self._depth(context), 0
        while done < batch:
            missing = batch - done
            # Two standard deviations more than fit on average, so that one round mostly does.
            roots = int((missing + 2 * math.sqrt(missing)) / _share(context, depth))
            forest = _grow(rng, roots, context, depth, missing)
            values = _write(rng, forest, inputs[done:])
            targets[done : done + len(values), -1] = values
            done += len(values)
        return Batch(inputs, targets)

    def floor(self, context: int) -> float:
        """The tree cut at depth 2: its score over many examples, at most of LRA's length."""
        return simulated_floor(self, min(context, LRA_CONTEXT))

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""

        def cut_at(inner: int) -> Solver:
            return lambda inputs: np.broadcast_to(_evaluate(inputs, inner)[:, None], inputs.shape)

        return {
            "oracle": lambda inputs: cut_at(inputs.shape[1])(inputs),
            "root-operator": cut_at(0),
            "cut-at-depth-2": cut_at(1),
            "majority": lambda inputs: np.zeros_like(inputs),
        }

    def render(self, token: int) -> str:
        """A digit, `[min`, `[max`, `[med` or `[sum`, `]`, or `·` for filler."""
        return str(token) if token < FILLER else NAMES[token - FILLER]

    def _depth(self, context: int) -> int:
        """The most levels of a tree; a level more makes trees longer by the growth of a level."""
        needed = LRA_DEPTH + math.log(context / LRA_CONTEXT, GROWTH)
        return max(self.config.max_depth, math.ceil(needed))


@functools.cache
def _share(context: int, depth: int) -> float:
    """About the share of roots that grow to a tree of the right length, the same every time."""
    kept = _grow(np.random.default_rng(0), PILOT, context, depth, PILOT)
    return (int(kept.operators[0]) + 1) / PILOT


def _grow(rng: np.random.Generator, roots: int, context: int, depth: int, most: int) -> _Forest:
    """Level by level, trees from operators down; at most so many of the right length are kept."""
    tree, width = np.arange(roots), np.ones(roots, np.int64)
    length, bits = width.copy(), np.full(roots, 128, np.uint8)
    fits = np.zeros(roots, np.bool_)
    levels: list[_Level] = []
    while len(tree):
        operators = _sums(_BITS_SET[bits], _bytes(width))
        arity = _draw(rng, _ARITIES, int(operators.sum()))
        levels.append(_Level(tree, width, operators, bits, arity))
        width = _sums(arity, operators)
        # Each argument is a token at least, so a tree is known to be too long before it is whole.
        length += operators + width
        shorter = length < context
        fits[tree[shorter & (width == 0) & (length > context / 4)]] = True
        grows = np.flatnonzero(shorter & (width > 0))
        tree, width, length = tree[grows], width[grows], length[grows]
        bits = _one_in_four(rng, width)
        if len(levels) == depth - 1:
            bits[:] = 0
    fits[np.flatnonzero(fits)[most:]] = False
    return _keep(levels, fits)


def _keep(levels: list[_Level], fits: NDArray[np.bool_]) -> _Forest:
    """Some trees of many alone."""
    tree, width, operators, bits, arity = map(np.concatenate, zip(*levels, strict=True))
    depth = np.repeat(np.arange(len(levels)), [len(level.tree) for level in levels])
    at = np.flatnonzero(fits[tree])
    nodes = _runs(8 * _firsts(_bytes(width))[at], width[at])
    arguments = _runs(_firsts(operators)[at], operators[at])
    by_level = np.bincount(depth[at], operators[at], len(levels)).astype(np.int64)
    return _Forest(
        np.unpackbits(bits)[nodes].view(np.bool_), arity[arguments].astype(np.int64), by_level
    )


def _fours(numbers: range) -> NDArray[np.uint32]:
    """All draws of four numbers, as the bytes of one."""
    return np.array(list(product(numbers, repeat=4)), np.uint8).view(np.uint32)[:, 0]


_DIGITS, _ARITIES = _fours(range(10)), _fours(range(2, MOST_ARGUMENTS + 1))
_NAMES = _fours(range(MIN, CLOSE))


def _draw(rng: np.random.Generator, fours: NDArray[np.uint32], count: int) -> NDArray[np.uint8]:
    """So many numbers, all equally likely, for a quarter of the random draws."""
    drawn = rng.integers(len(fours), size=-(-count // 4), dtype=np.uint16)
    return fours[drawn].view(np.uint8)[:count]


_BITS_SET = np.array([byte.bit_count() for byte in range(256)], np.uint8)
_HIGHEST = np.array([255, 128, 192, 224, 240, 248, 252, 254], np.uint8)
"""Masks of the bits of a last byte that are nodes, by how many bits are more than whole bytes."""


def _bytes(width: IntArray) -> IntArray:
    """Bytes that hold so many bits."""
    return (width + 7) >> 3


def _one_in_four(rng: np.random.Generator, width: IntArray) -> NDArray[np.uint8]:
    """Bits of so many nodes of each tree, set one time in four: where two fair bits are both."""
    ends = np.cumsum(_bytes(width))
    drawn = np.frombuffer(rng.bytes(2 * int(ends[-1]) if len(ends) else 0), np.uint8)
    bits = drawn[::2] & drawn[1::2]
    bits[ends - 1] &= _HIGHEST[width & 7]
    return bits


def _write(rng: np.random.Generator, forest: _Forest, rows: IntArray) -> IntArray:
    """Write trees, each at the end of its row, with digits and operators drawn; their values."""
    inner, arity, roots = np.flatnonzero(forest.is_operator), forest.arity, forest.operators[0]
    # The arguments of an operator follow those of the one before.
    first = roots + _firsts(arity)
    ends = np.cumsum(forest.operators).tolist()
    slices = [slice(*part) for part in pairwise([0, *ends]) if part[0] < part[1]]
    symbols = _draw(rng, _DIGITS, len(forest.is_operator))
    operators = _draw(rng, _NAMES, len(inner))
    values, sizes = symbols.copy(), np.ones(len(symbols), np.int64)
    symbols[inner] = operators
    for at in reversed(slices):
        below = slice(first[at.start], first[at.stop - 1] + arity[at.stop - 1])
        values[inner[at]] = _apply(operators[at], values[below], arity[at])
        sizes[inner[at]] = 2 + np.add.reduceat(sizes[below], first[at] - below.start)
    starts = np.empty_like(sizes)
    starts[:roots] = np.arange(1, roots + 1) * rows.shape[1] - sizes[:roots]
    before = _firsts(sizes)
    within = before[roots:] - np.repeat(before[first] - 1, arity)
    for at in slices:
        parents = np.repeat(starts[inner[at]], arity[at])
        below = slice(first[at.start], first[at.start] + len(parents))
        starts[below] = parents + within[below.start - roots : below.stop - roots]
    flat = rows.reshape(-1)
    flat[starts] = symbols
    flat[starts[inner] + sizes[inner] - 1] = CLOSE
    return values[:roots].astype(np.int64)


def _firsts(counts: IntArray) -> IntArray:
    """Where each of several groups begins that follow one another with the given sizes."""
    return np.cumsum(counts) - counts


def _runs(first: IntArray, counts: IntArray) -> IntArray:
    """Places of several groups, each from its first on: `[sum of counts]`."""
    return np.arange(counts.sum()) + np.repeat(first - _firsts(counts), counts)


def _sums(numbers: NDArray[Any], counts: IntArray) -> IntArray:
    """Sum of each of several groups that follow one another with the given sizes, or none."""
    total = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(numbers, out=total[1:])
    ends = np.cumsum(counts)
    return total[ends] - total[ends - counts]


FIELD = 5
"""Bits of a count of arguments: four for it and one that tells whether it reaches another."""
TOP, LAST, AFTER = FIELD - 1, 9 * FIELD, 10 * FIELD
"""Where in a tally the first such bit is, the last count and the sum of the arguments."""
ONES = sum(1 << FIELD * digit for digit in range(10))


def _tallies() -> IntArray:
    """For each digit, what adds up to counts of arguments up to 0, 1, ... 9, and to their sum."""
    up_to = [sum(1 << FIELD * other for other in range(digit, 10)) for digit in range(10)]
    return np.array([(digit << AFTER) + counts for digit, counts in enumerate(up_to)], np.int64)


def _ranks() -> IntArray:
    """For operators and numbers of arguments: what sets the bit of each count from a rank on."""
    ranks = np.zeros((2, CLOSE - MIN, MOST_ARGUMENTS + 1), np.int64)
    for count in range(1, MOST_ARGUMENTS + 1):
        # An even number of arguments has two in the middle.
        for middle in range(2):
            for name, rank in enumerate((1, count, (count + 1 + middle) // 2)):
                ranks[middle, name, count] = ONES * (2**TOP - rank)
    return ranks.reshape(2, -1)


_TALLIES, (_LOWER, _UPPER) = _tallies(), _ranks()
_LAST_DIGIT = (np.arange(9 * MOST_ARGUMENTS + 1) % 10).astype(np.uint8)
_MIDDLE = ((20 - np.arange(21)) // 2).astype(np.uint8)
"""The mean of two digits, rounded down, of how many digits are at least one or the other."""


def _apply(operators: NDArray[Any], arguments: NDArray[Any], counts: IntArray) -> NDArray[np.uint8]:
    """What each operator makes of its arguments, so many of each, one operator after another."""
    tallies = np.add.reduceat(_TALLIES[arguments], _firsts(counts))
    kinds = (operators - MIN) * (MOST_ARGUMENTS + 1) + counts
    reached = ((tallies + _LOWER[kinds]) >> TOP) & ONES
    reached += ((tallies + _UPPER[kinds]) >> TOP) & ONES
    # The product has the sum of all fields in the last of them.
    reached = ((reached * ONES) >> LAST) & (2**FIELD - 1)
    return np.where(operators == SUM, _LAST_DIGIT[tallies >> AFTER], _MIDDLE[reached])


def _evaluate(inputs: IntArray, cut: int) -> IntArray:
    """The value of each list, `[B]`, with a guess for operators inside of `cut` others."""
    tokens = inputs.ravel()
    is_operator = (tokens > FILLER) & (tokens < CLOSE)
    steps = is_operator.reshape(inputs.shape).astype(np.int64) - (inputs == CLOSE)
    depths = np.cumsum(steps, axis=1).ravel() - is_operator
    depths[(tokens == FILLER) | (tokens == CLOSE)] = -1
    below: IntArray = np.zeros(0, np.int64)
    values = below
    for depth in range(min(cut, int(depths.max())), -1, -1):
        nodes = np.flatnonzero(depths == depth)
        found, is_inner = tokens[nodes], is_operator[nodes]
        if is_inner.any():
            if depth == cut:
                found[is_inner] = GUESSES[found[is_inner] - MIN]
            else:
                first = np.searchsorted(below, nodes[is_inner])
                counts = np.diff(first, append=len(values))
                found[is_inner] = _apply(found[is_inner], values, counts)
        below, values = nodes, found
    return values


TASK = TaskSpec(
    build=ListOps,
    config=Config,
    title="ListOps",
    family="reasoning",
    version=2,
    metric="accuracy",
    ceiling=1.0,
    source="Tay et al. (2020), Long Range Arena, arXiv:2011.04006, section 2.2.1; generated",
    floor_solver=(
        "the tree cut at depth 2: the root worked out, with 0 for a minimum among its arguments, "
        "9 for a maximum, 4 for other operators (simulated; 58.8 % at LRA's lengths, where the "
        "root operator alone is right in 36.7 %)"
    ),
)
