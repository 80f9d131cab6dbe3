"""State tracking: each token is an element of a group; say the product so far at every position.

Source: Merrill et al. (2024), "The illusion of state in state-space models", arXiv:2404.08819,
section 5: word problems of groups that grow harder from parity, which is addition, over S3, whose
elements do not commute, to A5, which no network of constant depth solves at every length (unless
TC0 = NC1). Changed: tokens run through all elements of the group. The oracle is `delta-net` with
`negative_eigenvalues=true`: without, it cannot follow parity either (Grazzi et al. (2024),
arXiv:2411.12537).
Shapes: B batch, T tokens, g elements of the group.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

Group = Literal["parity", "s3", "a5"]


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Which group."""

    group: Group = "parity"
    """Two elements that add, the six orders of three things, or the sixty even ones of five."""


class StateTracking(Task[Config]):
    """The evidence is all that came before, so there are no distances."""

    @property
    def vocab_size(self) -> int:
        """Elements of the group."""
        return len(_elements(self.config.group))

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw T elements; the target at each position is the product up to it.

        Raises:
            ValueError: A context below two tokens.
        """
        if context < 2:
            raise ValueError(
                f"state-tracking needs a context of at least 2, got {context}; lengthen it"
            )
        # The states are as random as the elements: drawing them first saves multiplying one by one.
        states = rng.integers(self.vocab_size, size=(batch, context))
        inputs = states.copy()
        inputs[:, 1:] = _quotients(self.config.group)[states[:, :-1], states[:, 1:]]
        return Batch(inputs, states)

    def floor(self, context: int) -> float:
        """The element read last: the product at the first position, else once in g."""
        return (1 + (context - 1) / self.vocab_size) / context

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""
        products = _products(self.config.group)

        def oracle(inputs: IntArray) -> IntArray:
            states = inputs.copy()
            for at in range(1, inputs.shape[1]):
                states[:, at] = products[states[:, at - 1], inputs[:, at]]
            return states

        return {
            "oracle": oracle,
            "last-token": lambda inputs: inputs,
            "majority": lambda inputs: np.zeros_like(inputs),
        }

    def render(self, token: int) -> str:
        """`0` and `1`, or the order in which an element puts things: `abc` changes nothing."""
        if self.config.group == "parity":
            return str(token)
        return "".join("abcde"[place] for place in _elements(self.config.group)[token])


@functools.cache
def _elements(group: Group) -> IntArray:
    """The group as permutations, row by row, that of no change first: `[g, points]`."""
    points = {"parity": 2, "s3": 3, "a5": 5}[group]
    orders = np.array(list(itertools.permutations(range(points))), np.int64)
    if group != "a5":
        return orders
    inversions = sum(
        orders[:, left] > orders[:, right]
        for left, right in itertools.combinations(range(points), 2)
    )
    return orders[inversions % 2 == 0]


@functools.cache
def _products(group: Group) -> IntArray:
    """The number of `left` followed by `right`, `[g, g]`."""
    elements = _elements(group)
    power = len(elements[0]) ** np.arange(len(elements[0]))
    numbers = elements @ power
    order = np.argsort(numbers)
    composed = elements[:, None, :][:, [0] * len(elements)]  # [g, g, points] the left one
    composed = np.take_along_axis(composed, elements[None], axis=2)
    return order[np.searchsorted(numbers[order], composed @ power)]


@functools.cache
def _quotients(group: Group) -> IntArray:
    """What must follow `before` to reach `after`, `[g, g]`."""
    return np.argsort(_products(group), axis=1)


TASK = TaskSpec(
    build=StateTracking,
    config=Config,
    title="State tracking",
    family="reasoning",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Merrill et al. (2024), arXiv:2404.08819, section 5; generated",
    floor_solver=(
        "the element read last: right at the first position, and elsewhere once in as many as the "
        "group has (exact)"
    ),
    oracle="delta-net",
)
