"""Predict the next byte of Python source, in windows of the interpreter's standard library.

Source: `lcbench.corpus`, some 10 to 30 MB of text that people wrote, with definitions far from
their uses. Files are split, not windows, so no test file is trained on. Distances are those to the
same byte in the last occurrence of the same identifier, as in the recall slice of Arora et al.
(2023), "Zoology", arXiv:2312.04927, section 3.2.
"""

import functools
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcbench.corpus import load_corpus, text_of
from lcbench.task import Batch, IntArray, Solver, Split, Task, TaskConfig, TaskSpec

NUM_BYTES = 256
_IDENTIFIER = re.compile(rb"[A-Za-z_]\w{3,}")
"""Shorter ones are mostly keywords, or loop variables that mean something else each time."""

_MARKS = {0: "␀", ord("\t"): "⇥", ord("\n"): "↵", ord("\r"): "␍"}


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Nothing to choose: the text is what the interpreter brings."""


class CodeLM(Task[Config]):
    """A window starts anywhere in the split's text; every position is scored."""

    is_text = True

    @property
    def vocab_size(self) -> int:
        """The 256 values of a byte."""
        return NUM_BYTES

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw windows of `context` bytes, each target the byte after its input.

        The train split goes without distances, which training does not read.

        Raises:
            ValueError: A context longer than the split's text.
        """
        text = text_of(self.split)
        if context >= len(text):
            raise ValueError(
                f"code-lm's {self.split} split holds {len(text):,} bytes, too few for a context of "
                f"{context:,}; ask for less, or use an interpreter with its full standard library"
            )
        starts = rng.integers(len(text) - context, size=batch)
        windows = np.lib.stride_tricks.sliding_window_view(text, context + 1)[starts]
        inputs, targets = windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)
        if self.split == "train":
            return Batch(inputs, targets)
        columns = np.arange(1, context + 1)
        back = np.lib.stride_tricks.sliding_window_view(_bytes_back(self.split), context + 1)
        repeated = back[starts][:, 1:].astype(np.int64)
        # The byte before, too, must lie in the window: without it nothing tells what to look for.
        is_seen = (repeated > 0) & (columns > repeated)
        return Batch(inputs, targets, np.where(is_seen, repeated - 1, 0))

    def floor(self, context: int) -> float:
        """Bits per byte of the test split under the byte frequencies of the train split."""
        return _unigram_floor()

    def data_hash(self) -> str:
        """SHA-256 over the paths and contents of the library's files."""
        return load_corpus().data_hash

    def solvers(self) -> dict[str, Solver]:
        """The trivial solver, from inputs `[B, T]` to log2 probabilities `[B, T, 256]`."""

        def unigram(inputs: IntArray) -> NDArray[np.float64]:
            return np.broadcast_to(_unigram_bits(), (*inputs.shape, NUM_BYTES))

        return {"unigram": unigram}

    def render(self, token: int) -> str:
        r"""The character, a mark for a blank that would break the line, or `\xNN`."""
        if token in _MARKS:
            return _MARKS[token]
        return chr(token) if 32 <= token < 127 else f"\\x{token:02x}"


@functools.cache
def _bytes_back(split: Split) -> NDArray[np.int32]:
    return bytes_back(text_of(split).tobytes())


def bytes_back(text: bytes) -> NDArray[np.int32]:
    """How far back each byte of an identifier last stood in that identifier, else 0: `[bytes]`.

    The first byte of an identifier is left out: nothing before it tells which will come.
    """
    back = np.zeros(len(text), np.int32)
    last: dict[bytes, int] = {}
    for match in _IDENTIFIER.finditer(text):
        start = last.get(match[0])
        if start is not None:
            back[match.start() + 1 : match.end()] = match.start() - start
        last[match[0]] = match.start()
    return back


def _byte_counts(split: Split) -> IntArray:
    # By the megabyte, because bincount copies what it counts to eight times the bytes.
    text = text_of(split)
    pieces = (text[start : start + 2**20] for start in range(0, len(text), 2**20))
    return np.sum([np.bincount(piece, minlength=NUM_BYTES) for piece in pieces], axis=0)


@functools.cache
def _unigram_bits() -> NDArray[np.float64]:
    """Log2 of each byte's add-one smoothed frequency in the train split, `[256]`."""
    counts = _byte_counts("train") + 1
    return np.log2(counts / counts.sum())


@functools.cache
def _unigram_floor() -> float:
    counts = _byte_counts("test")
    return float(-(counts @ _unigram_bits()) / counts.sum())


TASK = TaskSpec(
    build=CodeLM,
    config=Config,
    title="Next byte of Python source",
    family="text",
    version=2,
    metric="bits_per_byte",
    # No better bound is known; a normalised score is then the share of the unigram's bits saved.
    ceiling=0.0,
    source="the running interpreter's standard library, files split by the hash of their path",
    floor_solver="byte frequencies of the train split (add-one), scored on the test split",
    real=True,
)
