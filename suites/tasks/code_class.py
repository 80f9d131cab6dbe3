"""Tell which package of the standard library a stretch of source is from.

Source: `lcbench.corpus`, its largest packages, files split within each. The whole stretch is
evidence, little of it anywhere: what a method keeps of all it read decides, not one place.
"""

import functools
from collections import Counter
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from lcbench.corpus import SEPARATOR, load_corpus
from lcbench.floors import measured_floor
from lcbench.task import IGNORE, Batch, IntArray, Solver, Split, Task, TaskConfig, TaskSpec

NUM_BYTES = 256
ASK = 256
"""The token that asks; the package of rank k is the token `ASK + 1 + k`."""
_MARKS = {0: "␀", ord("\t"): "⇥", ord("\n"): "↵", ord("\r"): "␍", ASK: "‹ask›"}


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """How many packages there are to tell apart."""

    num_packages: int = 8
    """Packages, those with most text in every split."""

    def __post_init__(self) -> None:
        if self.num_packages < 2:
            raise ValueError(f"num_packages must be at least 2, got {self.num_packages}")


class CodeClass(Task[Config]):
    """Every package is as likely as another; asked is the last position alone."""

    is_text = True

    @property
    def vocab_size(self) -> int:
        """The 256 values of a byte, the token that asks, and the packages."""
        return ASK + 1 + self.config.num_packages

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw a package each, and a stretch of its text; files shorter than that follow on.

        Raises:
            ValueError: A context longer than the text that the smallest package has in the split.
        """
        names = packages(self.config.num_packages)
        texts = [_text(self.split, name) for name in names]
        shortest = min(len(text) for text in texts)
        if not 1 < context <= shortest:
            raise ValueError(
                f"code-class needs a context of at least 2 and, on the {self.split} split, at most"
                f" {shortest:,} tokens, got {context:,}"
            )
        labels = rng.integers(len(names), size=batch)
        shares = rng.random(batch)
        inputs = np.full((batch, context), ASK)
        for row, label in enumerate(labels):
            start = int(shares[row] * (len(texts[label]) - context + 2))
            inputs[row, :-1] = texts[label][start : start + context - 1]
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = ASK + 1 + labels
        return Batch(inputs, targets)

    def floor(self, context: int) -> float:
        """What the best solver scores on the test split."""
        return measured_floor(CodeClass, self.config, TASK.metric, context)

    def data_hash(self) -> str:
        """SHA-256 over the paths and contents of the library's files."""
        return load_corpus().data_hash

    def solvers(self) -> dict[str, Solver]:
        """One package always, and the package whose byte frequencies fit best."""

        def majority(inputs: IntArray) -> IntArray:
            return np.full_like(inputs, ASK + 1)

        def bag_of_bytes(inputs: IntArray) -> IntArray:
            bits = _byte_bits(self.config.num_packages)[:, inputs[:, :-1]].sum(axis=2)
            return np.broadcast_to(ASK + 1 + bits.argmax(axis=0)[:, None], inputs.shape)

        return {"majority": majority, "bag of bytes": bag_of_bytes}

    def render(self, token: int) -> str:
        r"""The character, a mark for a blank, `\xNN`, or the name of a package."""
        if token > ASK:
            return f"‹{packages(self.config.num_packages)[token - ASK - 1]}›"
        if token in _MARKS:
            return _MARKS[token]
        return chr(token) if 32 <= token < 127 else f"\\x{token:02x}"


@functools.cache
def packages(count: int) -> tuple[str, ...]:
    """The packages with most text in the split where they have least, in alphabetical order.

    Raises:
        ValueError: There are not so many with text in every split.
    """
    sizes: dict[Split, Counter[str]] = {split: Counter() for split in get_args(Split)}
    for split, counted in sizes.items():
        for path, text in load_corpus().split(split):
            if "/" in path:
                counted[path.partition("/")[0]] += len(text)
    least = {name: min(counted[name] for counted in sizes.values()) for name in sizes["train"]}
    whole = sorted((name for name in least if least[name]), key=lambda name: (-least[name], name))
    if count > len(whole):
        raise ValueError(
            f"num_packages must be at most {len(whole)}, the packages of this interpreter that have"
            f" files in every split, got {count}"
        )
    return tuple(sorted(whole[:count]))


@functools.cache
def _text(split: Split, package: str) -> NDArray[np.uint8]:
    documents = load_corpus().split(split)
    own = [text for path, text in documents if path.startswith(f"{package}/")]
    return np.frombuffer(SEPARATOR.join(own), np.uint8)


@functools.cache
def _byte_bits(count: int) -> NDArray[np.float64]:
    """Log2 of each byte's add-one smoothed frequency in each package's train split."""
    texts = [_text("train", name) for name in packages(count)]
    counts = np.array([np.bincount(text, minlength=NUM_BYTES) for text in texts]) + 1
    return np.log2(counts / counts.sum(axis=1, keepdims=True))


TASK = TaskSpec(
    build=CodeClass,
    config=Config,
    title="Package of a stretch of source",
    family="classification",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="the running interpreter's standard library, files split within each package",
    floor_solver="byte frequencies of each package's train split, on test windows",
    real=True,
)
