"""Tell whether two stretches of source are of one module, or of two modules of one folder.

Source: `lcbench.corpus`, in place of Long Range Arena's Retrieval (Tay et al. (2020),
arXiv:2011.04006, section 2.2.3), whose papers may not be shared. Both stretches stand in one
context, so the first must be kept in mind to be compared.
"""

import functools
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcbench.corpus import load_corpus
from lcbench.floors import measured_floor
from lcbench.task import IGNORE, Batch, IntArray, Solver, Split, Task, TaskConfig, TaskSpec, stream

NUM_BYTES = 256
BETWEEN, ASK, OTHER, SAME = 256, 257, 258, 259
"""The tokens between the two stretches, after them, and of the two answers."""
FEWEST = 8
"""Modules long enough that a split must hold for a context."""
_TRIAL = 2048
"""Train examples that the solvers' thresholds are chosen on, fewer where a context is long."""
_TRIAL_TOKENS = 2**20
_WORD = re.compile(rb"[A-Za-z_]\w{3,}")
_MARKS = {0: "␀", ord("\t"): "⇥", ord("\n"): "↵", ord("\r"): "␍"} | {
    BETWEEN: "‹and›", ASK: "‹ask›", OTHER: "‹other›", SAME: "‹same›"
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Nothing to choose: the text is what the interpreter brings."""


class DocMatch(Task[Config]):
    """Half of the pairs are of one module; asked is the last position alone."""

    is_text = True

    @property
    def vocab_size(self) -> int:
        """The 256 values of a byte, two marks and two answers."""
        return SAME + 1

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw a module each, a stretch of it, and another that does not overlap or is of a rival.

        Both are of modules that could hold two such stretches, so that length tells nothing.

        Raises:
            ValueError: A context for which the split has too few long modules.
        """
        half = (context - 2) // 2
        modules = _modules(self.split, 2 * half) if half > 0 else None
        if modules is None or len(modules.texts) < FEWEST:
            raise ValueError(
                f"doc-match needs a context of at least 4, and {FEWEST} modules of the"
                f" {self.split} split that are as long beside another of their folder; {context:,}"
                " tokens is not so"
            )
        same = rng.integers(2, size=batch)
        first = rng.integers(len(modules.texts), size=batch)
        shares = rng.random((batch, 4))
        inputs = np.full((batch, context), BETWEEN)
        inputs[:, -1] = ASK
        for row, (one, is_same) in enumerate(zip(first, same, strict=True)):
            rivals = modules.rivals[one]
            other = one if is_same else rivals[int(shares[row, 3] * len(rivals))]
            # One is the earlier and one the later of its module, be it one module or two.
            inputs[row, :half] = stretch(modules.texts[one], half, shares[row])
            turned = np.append(shares[row, :2], 1 - shares[row, 2])
            inputs[row, -half - 1 : -1] = stretch(modules.texts[other], half, turned)
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = np.where(same == 1, SAME, OTHER)
        return Batch(inputs, targets)

    def floor(self, context: int) -> float:
        """What the best solver scores on the test split."""
        return measured_floor(DocMatch, self.config, TASK.metric, context)

    def data_hash(self) -> str:
        """SHA-256 over the paths and contents of the library's files."""
        return load_corpus().data_hash

    def solvers(self) -> dict[str, Solver]:
        """One answer always, and two kinds of likeness above a threshold."""

        def majority(inputs: IntArray) -> IntArray:
            return np.full_like(inputs, SAME)

        def by_likeness(name: str, inputs: IntArray) -> IntArray:
            is_same = _LIKENESS[name](inputs) >= _threshold(name, inputs.shape[1])
            return np.broadcast_to(np.where(is_same, SAME, OTHER)[:, None], inputs.shape)

        alike = {name: functools.partial(by_likeness, name) for name in _LIKENESS}
        return {"majority": majority, **alike}

    def render(self, token: int) -> str:
        r"""The character, a mark for a blank or an answer, or `\xNN`."""
        if token in _MARKS:
            return _MARKS[token]
        return chr(token) if 32 <= token < 127 else f"\\x{token:02x}"


class _Modules(NamedTuple):
    """Modules long enough for a pair, and for each the others of its folder."""

    texts: tuple[NDArray[np.uint8], ...]
    rivals: tuple[list[int], ...]


@functools.lru_cache(maxsize=32)
def _modules(split: Split, length: int) -> _Modules:
    folders: dict[str, list[bytes]] = defaultdict(list)
    for path, text in load_corpus().split(split):
        if len(text) >= length:
            folders[path.rpartition("/")[0]].append(text)
    texts: list[bytes] = []
    rivals: list[list[int]] = []
    for members in (found for found in folders.values() if len(found) > 1):
        own = list(range(len(texts), len(texts) + len(members)))
        texts += members
        rivals += [[other for other in own if other != one] for one in own]
    return _Modules(tuple(np.frombuffer(text, np.uint8) for text in texts), tuple(rivals))


def stretch(text: NDArray[np.uint8], half: int, shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The earlier or the later, as `shares[2]` says, of two stretches that do not overlap."""
    room = len(text) - 2 * half
    earlier, later = np.sort((shares[:2] * (room + 1)).astype(np.int64))
    start = int(earlier) if shares[2] < 0.5 else int(later) + half
    return text[start : start + half]


def _shared_frequencies(inputs: IntArray) -> NDArray[np.float64]:
    """What the byte frequencies of the two stretches have in common, 0 to 1: `[B]`."""
    half = (inputs.shape[1] - 2) // 2
    sides = (inputs[:, :half], inputs[:, -half - 1 : -1])
    counts = [np.stack([np.bincount(row, minlength=NUM_BYTES) for row in side]) for side in sides]
    return np.minimum(*counts).sum(axis=1) / half


def _shared_words(inputs: IntArray) -> NDArray[np.float64]:
    """The share of the shorter vocabulary that the other stretch has too: `[B]`."""
    half = (inputs.shape[1] - 2) // 2
    tokens = inputs.astype(np.uint8)
    found = [
        [set(_WORD.findall(side.tobytes())) for side in (row[:half], row[-half - 1 : -1])]
        for row in tokens
    ]
    return np.array([len(a & b) / max(1, min(len(a), len(b))) for a, b in found])


_LIKENESS = {"byte frequencies": _shared_frequencies, "words": _shared_words}


@functools.lru_cache(maxsize=32)
def _threshold(name: str, context: int) -> float:
    """The likeness from which calling two stretches the same is right most often in training."""
    count = min(_TRIAL, max(64, _TRIAL_TOKENS // context))
    drawn = DocMatch(Config(), "train").sample(stream({"floor": name}, "train", 0), count, context)
    likeness, same = _LIKENESS[name](drawn.inputs), drawn.targets[:, -1] == SAME
    order = np.argsort(likeness)
    # Below the cut "other" is right, from it on "same".
    right = np.cumsum(~same[order]) + same.sum() - np.cumsum(same[order])
    return float(np.append(likeness[order], np.inf)[right.argmax() + 1])


TASK = TaskSpec(
    build=DocMatch,
    config=Config,
    title="Two stretches of one module",
    family="classification",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="the running interpreter's standard library, pairs within a folder",
    floor_solver="words or byte frequencies in common, above a threshold chosen in training",
    real=True,
)
