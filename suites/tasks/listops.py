"""ListOps: the value of a nested list of minima, maxima, medians and sums.

Source: the ListOps task of Tay et al. (2020), "Long Range Arena: A benchmark for efficient
transformers", arXiv:2011.04006, after Nangia and Bowman (2018), arXiv:1804.06028: the grammar of
their generator and, at a context of 2,000, its lengths, from a quarter of the context to all of it.
Changed: other contexts have lengths in the same proportion, beyond 2,000 in deeper trees; filler
stands before the list, and the value is asked for at its last bracket.
Shapes: B batch, T tokens, n nodes of one level of all trees.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

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
MOST_ARGUMENTS = 10
GROWTH = OPERATOR_SHARE * (2 + MOST_ARGUMENTS) / 2
"""Operators of a level for each of the level above."""
LRA_CONTEXT, LRA_DEPTH = 2000, 10
SHORTEST_CONTEXT = 8


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
    """`[n]` which tree a node belongs to."""
    drawn: NDArray[np.int16]
    """`[n]` what a node is, a row of `_OUTCOMES`."""


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
        done = tried = 0
        while done < batch:
            # As many trees as should do by the share that fitted so far, or a third.
            roots = 8 + int(1.2 * (batch - done) * (tried + 30) / (done + 10))
            levels = _grow(rng, roots, context, self._depth(context))
            values = _write(levels, inputs[done:])
            targets[done : done + len(values), -1] = values
            done, tried = done + len(values), tried + roots
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


def _outcomes() -> NDArray[np.int16]:
    """Everything a node can be, all equally likely: `[1440, 2]` symbols and arities.

    The first quarter are operators; for one draw a node where two or three would do.
    """
    arities = range(2, MOST_ARGUMENTS + 1)
    operators = [(name, arity) for name in range(MIN, CLOSE) for arity in arities] * 10
    digits = [(digit, 0) for digit in range(10)] * (3 * len(operators) // 10)
    return np.array(operators + digits, np.int16)


_OUTCOMES = _outcomes()
_SYMBOL, _ARITY = np.ascontiguousarray(_OUTCOMES.T)
_OPERATORS = len(_OUTCOMES) // 4


def _grow(rng: np.random.Generator, roots: int, context: int, depth: int) -> list[_Level]:
    """Level by level, trees from operators down; those of the wrong length are left out."""
    tree, fits = np.arange(roots), np.ones(roots, np.bool_)
    length = np.ones(roots)
    levels: list[_Level] = []
    for level in range(depth):
        first = _OPERATORS if level == depth - 1 else 0
        end = _OPERATORS if level == 0 else len(_OUTCOMES)
        drawn = rng.integers(first, end, size=len(tree), dtype=np.int16)
        levels.append(_Level(tree, drawn))
        inner = np.flatnonzero(drawn < _OPERATORS)
        tree, arity = tree[inner], _ARITY[drawn[inner]]
        # Each argument is a token at least, so a tree is known to be too long before it is whole.
        length += np.bincount(tree, arity + 1, roots)
        fits &= length < context
        tree = np.repeat(tree, arity * fits[tree])
    fits &= length > context / 4
    number = np.cumsum(fits) - 1
    kept = [(level, fits[level.tree]) for level in levels]
    return [_Level(number[level.tree[keep]], level.drawn[keep]) for level, keep in kept]


def _write(levels: list[_Level], rows: IntArray) -> IntArray:
    """Write trees, as many as there are rows, each at the end of its row; the values of those."""
    ends = [np.searchsorted(level.tree, len(rows)) for level in levels]
    roots = levels[0].tree[: ends[0]]
    drawn = [level.drawn[:end] for level, end in zip(levels, ends, strict=True) if end]
    inner = [np.flatnonzero(level < _OPERATORS) for level in drawn]
    arity = [_ARITY[level[at]] for level, at in zip(drawn, inner, strict=True)]
    values = [_SYMBOL[level].astype(np.int64) for level in drawn]
    sizes = [np.ones_like(value) for value in values]
    symbols = [value.copy() for value in values]
    for depth in reversed(range(len(drawn) - 1)):
        first = _firsts(arity[depth])
        values[depth][inner[depth]] = _apply(symbols[depth][inner[depth]], values[depth + 1], first)
        sizes[depth][inner[depth]] = 2 + np.add.reduceat(sizes[depth + 1], first)
    flat, start = rows.reshape(-1), (roots + 1) * rows.shape[1] - sum(sizes[:1])
    for depth, (symbol, size) in enumerate(zip(symbols, sizes, strict=True)):
        flat[start] = symbol
        parents = start[inner[depth]]
        flat[parents + size[inner[depth]] - 1] = CLOSE
        if depth + 1 < len(sizes):
            before = _firsts(sizes[depth + 1])
            start = np.repeat(parents + 1 - before[_firsts(arity[depth])], arity[depth]) + before
    return values[0] if values else roots


def _firsts(counts: IntArray) -> IntArray:
    """Where each of several groups begins that follow one another with the given sizes."""
    return np.cumsum(counts) - counts


def _apply(operators: IntArray, arguments: IntArray, first: IntArray) -> IntArray:
    """What each operator makes of its arguments, which begin at `first`."""
    values = np.add.reduceat(arguments, first) % 10
    for name, reduce in ((MIN, np.minimum.reduceat), (MAX, np.maximum.reduceat)):
        values = np.where(operators == name, reduce(arguments, first), values)
    is_median = operators == MED
    if not is_median.any():
        return values
    counts = np.diff(first, append=len(arguments))
    arguments = arguments[np.repeat(is_median, counts)]
    counts = counts[is_median]
    first, group = _firsts(counts), np.repeat(np.arange(len(counts)), counts)
    # Sorted within each group; an even number of arguments has two in the middle.
    ordered = np.sort(10 * group + arguments) % 10
    values[is_median] = (ordered[first + (counts - 1) // 2] + ordered[first + counts // 2]) // 2
    return values


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
                found[is_inner] = _apply(found[is_inner], values, first)
        below, values = nodes, found
    return values


TASK = TaskSpec(
    build=ListOps,
    config=Config,
    title="ListOps",
    family="reasoning",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Tay et al. (2020), Long Range Arena, arXiv:2011.04006, section 2.2.1; generated",
    floor_solver=(
        "the tree cut at depth 2: the root worked out, with 0 for a minimum among its arguments, "
        "9 for a maximum, 4 for other operators (simulated; 58.8 % at LRA's lengths, where the "
        "root operator alone is right in 36.7 %)"
    ),
)
