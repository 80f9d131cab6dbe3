"""The task contract: what draws inputs and targets, and how answers are scored."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lcbench.config import Config, digest

IGNORE = -100
"""The target of a position that is not scored (torch's own `ignore_index`)."""

Split = Literal["train", "validation", "test"]
Metric = Literal["accuracy", "exact_match", "bits_per_byte"]
IntArray = NDArray[np.int64]
Solver = Callable[[IntArray], NDArray[Any]]
"""From inputs `[B, T]` to predictions `[B, T]`, or for `bits_per_byte` to log2 probabilities
`[B, T, vocab_size]`."""


class Batch(NamedTuple):
    """Examples of one context."""

    inputs: IntArray
    """`[B, T]` tokens in `[0, vocab_size)`."""
    targets: IntArray
    """`[B, T]`: what the model should give at each position, `IGNORE` where nothing is asked."""
    distances: IntArray | None = None
    """`[B, T]` tokens between an answer and the evidence it needs; 0 where there is none."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """Base of a task's configuration."""


ConfigT = TypeVar("ConfigT", bound=TaskConfig)


class Task(Generic[ConfigT]):
    """A source of examples for one split; whatever is random comes from the generator given."""

    is_text: ClassVar[bool] = False
    """Whether tokens are characters, to be read as one; others are read each for itself."""
    end: ClassVar[int | None] = None
    """The token at the end of each passage that a model is asked to write by itself, too, where
    answers are such passages one after another from the first on; None where they are not."""

    def __init__(self, config: ConfigT, split: Split) -> None:
        self.config = config
        self.split: Split = split

    @property
    def vocab_size(self) -> int:
        """Number of distinct tokens, targets included."""
        raise NotImplementedError(f"{type(self).__name__} does not define vocab_size")

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw `batch` examples of exactly `context` tokens.

        Raises:
            ValueError: A context in which the task does not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define sample")

    def floor(self, context: int) -> float:
        """Score of the best trivial solver at this context, in the task's metric."""
        raise NotImplementedError(f"{type(self).__name__} does not define floor")

    def solvers(self) -> dict[str, Solver]:
        """The trivial solvers, of which the floor is the best, by name.

        A synthetic task has one more, `oracle`: a reader that never fails.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define solvers")

    def data_hash(self) -> str | None:
        """Hash of the real data the examples come from, or None for a synthetic task."""
        return None

    def render(self, token: int) -> str:
        """One token as a person would read it."""
        return str(token)

    def text(self, tokens: IntArray) -> str:
        """A passage `[N]` as text, to be compared with another character by character."""
        return "".join(map(self.render, tokens.tolist()))

    def columns(self, context: int) -> int | None:
        """Tokens of a line, where an example is an image; None for running text."""
        return None


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What a task declares of itself.

    Raises:
        ValueError: An empty title or description, or a version below one.
    """

    build: Callable[[Any, Split], Task[Any]]
    config: type[TaskConfig]
    title: str
    family: str
    """`recall`, `copying`, `reasoning`, `text`, ..."""
    version: int
    """Goes up with every change that changes an example or a score."""
    metric: Metric
    ceiling: float
    """The best possible score, or for a real task the score that would mean nothing is left."""
    source: str
    """The paper and section, or the corpus."""
    floor_solver: str
    """What the floor is: the trivial solver in words."""
    real: bool = False
    """Whether the examples come from a corpus."""
    oracle: str = "vanilla"
    """The method that must solve it for the task to be worth asking."""

    def __post_init__(self) -> None:
        for name in ("title", "family", "source", "floor_solver"):
            if not getattr(self, name).strip():
                raise ValueError(f"a task's {name} is empty")
        if self.version < 1:
            raise ValueError(f"a task's version is at least 1, got {self.version}")


def stream(scope: Mapping[str, Any], split: Split, step: int) -> np.random.Generator:
    """The generator of one step of one split.

    Args:
        scope: What tells one stream from another: suite, task, config, context and seed. The method
            is not in it, so every method sees the same examples.
        split: Its name enters the hash, so that no two splits share a stream.
        step: Number of the batch within the split.
    """
    text = json.dumps([dict(scope), split, step], sort_keys=True)
    return np.random.default_rng(int(digest(text, 32), 16))


def normalise(score: float, floor: float, ceiling: float) -> float:
    """Put a score on the scale where the floor is 0 and the ceiling 1; it may fall outside."""
    return (score - floor) / (ceiling - floor)
