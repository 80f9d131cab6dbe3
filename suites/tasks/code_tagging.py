"""Name the kind of token that every byte of Python source belongs to.

Source: `lcbench.corpus`; the truth is the tokenizer's. A window starts on a line where no token is
open and holds part of a string of several lines. Text inside such a string may look like code, or
hold a quote or a hash: what decides is the quotes that opened it hundreds of bytes ago.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lcbench.corpus import SEPARATOR, STRING, Document, load_corpus, text_of
from lcbench.floors import measured_floor
from lcbench.task import Batch, IntArray, Solver, Split, Task, TaskConfig, TaskSpec

NUM_BYTES = 256
KINDS = ("blank", "name", "number", "operator", "string", "comment")
"""Kind k is the token `NUM_BYTES + k`. Keywords are names, since their first letters do not tell
them apart, and so is the prefix of a string, since only its quote tells it."""
LONG_LINES = 3
"""Lines of the shortest string for which a window is chosen."""
_MARKS = {0: "␀", ord("\t"): "⇥", ord("\n"): "↵", ord("\r"): "␍"}

# The groups stand in the order of KINDS, from `name` on.
_TOKEN = re.compile(
    rb"""([A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)
    | (0[xXoObB][0-9a-fA-F_]+
      | (?:[0-9][0-9_]*(?:\.[0-9_]*)? | \.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?[jJ]?)
    | ([^\s\w\x00\#"'\\])
    | ("""
    + STRING
    + rb""") | (\#[^\n\r]*)""",
    re.VERBOSE | re.DOTALL,
)
_STRING_OR_COMMENT = re.compile(rb"(" + STRING + rb") | \#[^\n\r]*", re.VERBOSE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Nothing to choose: the text is what the interpreter brings."""


class Kinds(NamedTuple):
    """What a lexer tells of a text."""

    kind: IntArray
    """`[bytes]` index into `KINDS`."""
    depth: IntArray
    """`[bytes]` since the token began, 0 at its first and in blanks."""


def lex(text: bytes) -> Kinds:
    """The kind of token of every byte, read from a place where no token is open."""
    spans = [(match.start(), match.end(), match.lastindex) for match in _TOKEN.finditer(text)]
    found = np.array(spans, dtype=np.int64).reshape(-1, 3)
    # Blanks and tokens in turn, so that what runs from one to the next is repeated in one go.
    edges = np.concatenate([[0], found[:, :2].ravel(), [len(text)]])
    kinds = np.zeros(len(edges) - 1, dtype=np.int64)
    kinds[1::2] = found[:, 2]
    lengths = np.diff(edges)
    kind = np.repeat(kinds, lengths)
    depth = np.arange(len(text)) - np.repeat(edges[:-1], lengths)
    return Kinds(kind, np.where(kind > 0, depth, 0))


class CodeTagging(Task[Config]):
    """Every byte is asked, after it was read; the distance is that to the start of its token."""

    is_text = True

    @property
    def vocab_size(self) -> int:
        """The 256 values of a byte, and the kinds."""
        return NUM_BYTES + len(KINDS)

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw windows that hold a byte of a long string, any such byte as likely as another.

        Raises:
            ValueError: A context longer than the split's text.
        """
        text = text_of(self.split)
        if context >= len(text):
            raise ValueError(
                f"code-tagging's {self.split} split holds {len(text):,} bytes, too few for a"
                f" context of {context:,}; ask for less"
            )
        inputs = np.lib.stride_tricks.sliding_window_view(text, context)[
            _starts(rng, self.split, batch, context)
        ]
        lexed = [lex(window.tobytes()) for window in inputs]
        kinds, depths = (np.stack(part) for part in zip(*lexed, strict=True))
        return Batch(inputs.astype(np.int64), NUM_BYTES + kinds, depths)

    def floor(self, context: int) -> float:
        """What the best solver scores on the test split."""
        return measured_floor(CodeTagging, self.config, TASK.metric, context)

    def data_hash(self) -> str:
        """SHA-256 over the paths and contents of the library's files."""
        return load_corpus().data_hash

    def solvers(self) -> dict[str, Solver]:
        """The commonest kind, and a lexer that starts anew on every line."""

        def majority(inputs: IntArray) -> IntArray:
            return np.full_like(inputs, NUM_BYTES + KINDS.index("string"))

        return {"majority": majority, "line": _lex_lines}

    def render(self, token: int) -> str:
        r"""The character, a mark for a blank, `\xNN`, or the name of a kind."""
        if token >= NUM_BYTES:
            return f"‹{KINDS[token - NUM_BYTES]}›"
        if token in _MARKS:
            return _MARKS[token]
        return chr(token) if 32 <= token < 127 else f"\\x{token:02x}"


def _lex_lines(inputs: IntArray) -> IntArray:
    """Kinds as they look to whoever sees one line at a time: `[B, T]`."""
    kinds = [
        np.concatenate([lex(line).kind for line in window.tobytes().splitlines(keepends=True)])
        for window in inputs.astype(np.uint8)
    ]
    return NUM_BYTES + np.stack(kinds)


class _Strings(NamedTuple):
    """Where the long strings of a split lie in its text."""

    line: IntArray
    """`[N]` start of the line a string begins on."""
    begin: IntArray
    end: IntArray
    plain: IntArray
    """Starts of all lines on which no token is open, and the end of the text."""


@functools.cache
def _strings(split: Split) -> _Strings:
    text = text_of(split)
    spans = _string_spans(load_corpus().split(split))
    breaks = np.flatnonzero(np.isin(text, np.frombuffer(b"\n" + SEPARATOR, np.uint8))) + 1
    # How many strings have begun before a line, less how many have ended: 1 inside of one.
    begun, ended = (np.searchsorted(side, breaks) for side in spans.T)
    plain = np.concatenate([[0], breaks[begun == ended], [len(text)]])
    lines = np.searchsorted(breaks, spans[:, 1]) - np.searchsorted(breaks, spans[:, 0])
    begin, end = spans[lines >= LONG_LINES - 1].T
    return _Strings(plain[np.searchsorted(plain, begin, side="right") - 1], begin, end, plain)


def _string_spans(documents: Iterable[Document]) -> IntArray:
    """Start and end of every string in the text the documents make together: `[N, 2]`."""
    spans: list[tuple[int, int]] = []
    offset = 0
    for document in documents:
        for match in _STRING_OR_COMMENT.finditer(document.text):
            if match.lastindex:
                spans.append((offset + match.start(), offset + match.end()))
        offset += len(document.text) + len(SEPARATOR)
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def _starts(rng: np.random.Generator, split: Split, batch: int, context: int) -> IntArray:
    """Starts of windows that each hold a byte drawn from all bytes of long strings: `[batch]`."""
    strings = _strings(split)
    # What lies deeper in its string than a context is long cannot be asked with its evidence.
    bytes_of = np.minimum(strings.end, strings.line + context) - strings.begin
    upto = np.cumsum(np.maximum(bytes_of, 0))
    drawn = rng.integers(upto[-1], size=batch)
    chosen = np.searchsorted(upto, drawn, side="right")
    line = strings.line[chosen]
    byte = strings.begin[chosen] + drawn - np.concatenate([[0], upto])[chosen]
    earliest = np.maximum(byte - context + 1, 0)
    wanted = rng.integers(earliest, line + 1)
    starts = strings.plain[np.searchsorted(strings.plain, wanted)]
    return np.minimum(starts, len(text_of(split)) - context)


TASK = TaskSpec(
    build=CodeTagging,
    config=Config,
    title="Token kinds of Python source",
    family="reading",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="the running interpreter's standard library, labelled as its tokenizer does",
    floor_solver="the better of all string and a lexer that starts anew on every line",
    real=True,
)
