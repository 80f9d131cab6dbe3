"""Variable tracking: variables are set to values or to other variables; say what the last hold.

Source: variable tracking of Hsieh et al. (2024), "RULER: What's the real context size of your
long-context language models?", arXiv:2404.06654, section 3, as tokens. Changed: the value of a
variable is asked for, not the variables of a value; noise is drawn anew; all chains take one hop
before any takes the next, in an order of its own, so that no order gives a chain away.
Shapes: B batch, T tokens, C chains, A assignments.
"""

from dataclasses import dataclass

import numpy as np

from lcbench.sampling import ask, distinct, places
from lcbench.task import Batch, IntArray, Solver, Task, TaskConfig, TaskSpec

SET, ASK = 0, 1
NUM_MARKS = 2


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How many chains there are, and how long."""

    num_chains: int = 4
    """Values, each handed on from variable to variable; the last variable is asked for."""
    num_hops: int = 1
    """Times a value is handed on; every assignment takes three tokens, every question two."""
    vocab_size: int = 64
    """Two marks, then in equal parts variables, values and noise."""
    farthest: int | None = None
    """Most tokens between an answer and its evidence; None is as many as the context has."""

    def __post_init__(self) -> None:
        if self.num_chains < 2:
            raise ValueError(
                f"num_chains must be at least 2, got {self.num_chains}: the only value of a "
                "context is its answer, whatever is asked"
            )
        if self.num_hops < 1:
            raise ValueError(f"num_hops must be at least 1, got {self.num_hops}")
        if self.third < self.num_assignments:
            raise ValueError(
                f"vocab_size must be at least {NUM_MARKS + 3 * self.num_assignments} for "
                f"{self.num_assignments} variables, got {self.vocab_size}"
            )
        if self.farthest is not None and self.farthest < self.fewest_tokens:
            raise ValueError(
                f"farthest must be at least {self.fewest_tokens} for {self.num_chains} chains of "
                f"{self.num_hops} hops, got {self.farthest}"
            )

    @property
    def third(self) -> int:
        """Number of variables, of values and of kinds of noise."""
        return (self.vocab_size - NUM_MARKS) // 3

    @property
    def num_assignments(self) -> int:
        """Assignments of a context, A, each to a variable of its own."""
        return self.num_chains * (self.num_hops + 1)

    @property
    def fewest_tokens(self) -> int:
        """Tokens of the assignments and of the questions."""
        return 3 * self.num_assignments + 2 * self.num_chains


class VariableTracking(Task[Config]):
    """Distance is counted from the asked variable back to its value, the start of its chain."""

    @property
    def vocab_size(self) -> int:
        """The marks, variables, values and noise."""
        return self.config.vocab_size

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw noise with assignments `x ← 5` and `y ← x` in it, then `? y` for every chain.

        Raises:
            ValueError: A context below three tokens an assignment and two a chain.
        """
        config, chains, third = self.config, self.config.num_chains, self.config.third
        if context < config.fewest_tokens:
            raise ValueError(
                f"variable-tracking with num_chains={chains} and num_hops={config.num_hops} needs "
                f"a context of at least {config.fewest_tokens}, got {context}; lengthen it, or "
                "lower either"
            )
        names = NUM_MARKS + distinct(rng, batch, config.num_assignments, third)  # [B, A]
        sources = np.empty_like(names)
        sources[:, :chains] = NUM_MARKS + third + distinct(rng, batch, chains, third)
        chain = np.tile(np.arange(chains), (batch, 1))  # [B, C] which value each variable holds
        for first in range(chains, config.num_assignments, chains):
            order = distinct(rng, batch, chains, chains)
            before = names[:, first - chains : first]
            sources[:, first : first + chains] = np.take_along_axis(before, order, axis=1)
            chain = np.take_along_axis(chain, order, axis=1)
        asked = distinct(rng, batch, chains, chains)
        chain = np.take_along_axis(chain, asked, axis=1)
        body = context - 2 * chains
        begin = max(0, context - (config.farthest or context))
        starts = begin + places(rng, batch, config.num_assignments, 3, body - begin)
        inputs = rng.integers(NUM_MARKS + 2 * third, self.vocab_size, size=(batch, context))
        np.put_along_axis(inputs, starts, names, axis=1)
        np.put_along_axis(inputs, starts + 1, SET, axis=1)
        np.put_along_axis(inputs, starts + 2, sources, axis=1)
        inputs[:, body::2] = ASK
        inputs[:, body + 1 :: 2] = np.take_along_axis(names[:, -chains:], asked, axis=1)
        answers, evidence = (np.take_along_axis(x, chain, axis=1) for x in (sources, starts + 2))
        queries = np.broadcast_to(np.arange(body + 1, context, 2), chain.shape)
        return ask(inputs, queries, answers, evidence)

    def floor(self, context: int) -> float:
        """Any one value of the context, for every chain: each is asked for once, so 1 / C."""
        return 1 / self.config.num_chains

    def solvers(self) -> dict[str, Solver]:
        """A reader that never fails and the trivial ones, from inputs to predictions `[B, T]`."""
        num_assignments, chains = self.config.num_assignments, self.config.num_chains

        def assignments(inputs: IntArray) -> tuple[IntArray, IntArray]:
            rows, columns = np.nonzero(inputs == SET)
            found = inputs[rows, columns - 1], inputs[rows, columns + 1]
            names, sources = (tokens.reshape(-1, num_assignments) for tokens in found)
            return names, sources

        def oracle(inputs: IntArray) -> IntArray:
            held = np.tile(np.arange(self.vocab_size), (len(inputs), 1))
            for name, source in zip(*(x.T[..., None] for x in assignments(inputs)), strict=True):
                np.put_along_axis(held, name, np.take_along_axis(held, source, axis=1), axis=1)
            return np.take_along_axis(held, inputs, axis=1)

        def value(inputs: IntArray, chain: int) -> IntArray:
            return np.broadcast_to(assignments(inputs)[1][:, chain, None], inputs.shape)

        return {
            "oracle": oracle,
            "first-value": lambda inputs: value(inputs, 0),
            "last-value": lambda inputs: value(inputs, chains - 1),
            "majority": lambda inputs: np.full_like(inputs, NUM_MARKS + self.config.third),
        }

    def render(self, token: int) -> str:
        """`←` and `?` for the marks, `x7` for a variable, `12` for a value, `~3` for noise."""
        if token < NUM_MARKS:
            return "←?"[token]
        kind, number = divmod(token - NUM_MARKS, self.config.third)
        return f"{('x', '')[kind]}{number}" if kind < 2 else f"~{token - 2 * self.config.third - 2}"


TASK = TaskSpec(
    build=VariableTracking,
    config=Config,
    title="Variable tracking",
    family="reasoning",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="Hsieh et al. (2024), RULER, arXiv:2404.06654, section 3; generated",
    floor_solver=(
        "any one value of the context for every chain: the first, the last or a random one is "
        "right once in num_chains; the majority value only once in vocab_size / 3"
    ),
)
