"""Translate functions to what the interpreter's own compiler makes of them.

Source: `lcbench.corpus`, functions as people wrote them; the translation is `dis`'s listing of
`compile`'s output, so every pair is exact, and any interpreter has thousands. It is translation as
between languages in that order changes, names are copied and much is told by what stands far off;
it is not in that one translation alone is right, which is why it can be scored token by token.
Normalised: instructions that only keep the interpreter's books are left out, and so are numeric
arguments; names, and constants up to `MOST_CONSTANT` bytes, are spelt out.

A model is also asked to write the listings by itself, of which exact match and, where sacrebleu is
installed (the extra `translation`), chrF are kept: one token wrong, and the rest is written after
it.
"""

import ast
import dis
import functools
import hashlib
import sys
import types
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lcbench.corpus import Document, load_corpus
from lcbench.floors import measured_floor
from lcbench.task import IGNORE, Batch, IntArray, Solver, Split, Task, TaskConfig, TaskSpec

NUM_BYTES = 256
TRANSLATE, END = 256, 257
"""The tokens between sources and listings, and after each listing."""
OPERATIONS = tuple(sorted(dis.opmap))
"""Operation k is the token `END + 1 + k`."""
MOST_CONSTANT = 24
MOST_SOURCE = 2048
"""Bytes of the longest function taken."""
SPLIT_BYTES = {"train": 4_000_000, "validation": 1_000_000, "test": 1_000_000}
"""Source compiled of each split, at most: compiling all of it takes longer than a short run."""
_BOOKKEEPING = {"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "RESUME"}
_SPELT = {*dis.hasname, *dis.haslocal, *dis.hasfree, *dis.hasconst}
_TOKEN_OF = {name: END + 1 + rank for rank, name in enumerate(OPERATIONS)}
_MARKS = {0: "␀", ord("\t"): "⇥", ord("\n"): "↵", ord("\r"): "␍"} | {
    TRANSLATE: "‹translate›", END: "‹end›"
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Nothing to choose: the text is what the interpreter brings."""


class Pair(NamedTuple):
    """One function and its translation."""

    source: IntArray
    listing: IntArray
    """Ends with `END`."""
    origin: IntArray
    """Where in the source the instruction of each token of the listing begins, -1 if nowhere."""


class Translation(Task[Config]):
    """Functions in a row, as many as fit, then their listings in the same order."""

    is_text = True
    end = END

    @property
    def vocab_size(self) -> int:
        """The 256 values of a byte, two marks and the operations of this interpreter."""
        return END + 1 + len(OPERATIONS)

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw where to start in the split's functions; what is left over stands empty in front.

        Distances are those to where the compiler says that an instruction comes from.

        Raises:
            ValueError: A context in which no function fits.
        """
        pairs = _pairs(self.split)
        fitting = np.flatnonzero(pairs.lengths <= context)
        if not len(fitting):
            raise ValueError(
                f"translation needs a context of at least {pairs.lengths.min()} tokens, which the"
                f" shortest function of the {self.split} split takes, got {context:,}"
            )
        inputs = np.zeros((batch, context), np.int64)
        targets, distances = np.full_like(inputs, IGNORE), np.zeros_like(inputs)
        for row, first in enumerate(fitting[rng.integers(len(fitting), size=batch)]):
            # The last `END` is a target alone, which makes room for the mark.
            room = pairs.upto[first] + context
            last = max(first + 1, int(np.searchsorted(pairs.upto, room, side="right")) - 1)
            sources, listings, origins = zip(*pairs.items[first:last], strict=True)
            starts = np.cumsum([0, *map(len, sources)])
            asked = np.concatenate(listings)
            evidence = np.concatenate(
                [np.where(o >= 0, o + s, -1) for o, s in zip(origins, starts, strict=False)]
            )
            begin = context - starts[-1] - len(asked)
            inputs[row, begin:] = np.concatenate([*sources, [TRANSLATE], asked[:-1]])
            targets[row, -len(asked) :] = asked
            at = np.arange(context - len(asked), context) - begin
            distances[row, -len(asked) :] = np.where(evidence >= 0, at - evidence, 0)
        return Batch(inputs, targets, distances)

    def floor(self, context: int) -> float:
        """What the best solver scores on the test split."""
        return measured_floor(Translation, self.config, TASK.metric, context)

    def data_hash(self) -> str:
        """SHA-256 over the library's files and what this interpreter compiles to."""
        compiler = f"{load_corpus().data_hash} {sys.version_info[:2]} {OPERATIONS}"
        return hashlib.sha256(compiler.encode()).hexdigest()

    def solvers(self) -> dict[str, Solver]:
        """The commonest token, and the likeliest after the two before it."""

        def unigram(inputs: IntArray) -> IntArray:
            return np.full_like(inputs, _likeliest()[()])

        return {"unigram": unigram, "trigram": _trigram}

    def render(self, token: int) -> str:
        r"""The character, a mark for a blank, `\xNN`, or the name of an operation."""
        if token > END:
            return f"‹{OPERATIONS[token - END - 1]}›"
        if token in _MARKS:
            return _MARKS[token]
        return chr(token) if 32 <= token < 127 else f"\\x{token:02x}"

    def text(self, tokens: IntArray) -> str:
        """A listing as `dis` would print it: a line for each instruction, with what it is about."""
        words = (
            f"\n{OPERATIONS[token - END - 1]} " if token > END else self.render(token)
            for token in tokens.tolist()
            if token != END
        )
        return "".join(words).strip()


class _Pairs(NamedTuple):
    """The functions of a split, in the order of its files."""

    items: tuple[Pair, ...]
    lengths: IntArray
    """Tokens of each, source and listing."""
    upto: IntArray
    """`[N + 1]` their running sum from 0."""


@functools.cache
def _pairs(split: Split) -> _Pairs:
    items = tuple(pair for document in _documents(split) for pair in _translate(document.text))
    lengths = np.array([len(pair.source) + len(pair.listing) for pair in items])
    return _Pairs(items, lengths, np.concatenate([[0], np.cumsum(lengths)]))


def _documents(split: Split) -> Iterator[Document]:
    """Files of a split up to `SPLIT_BYTES`, in an order that their paths do not tell."""

    def shuffled(document: Document) -> bytes:
        return hashlib.sha256(document.path.encode()).digest()

    total = 0
    for document in sorted(load_corpus().split(split), key=shuffled):
        total += len(document.text)
        if total > SPLIT_BYTES[split]:
            return
        yield document


def _translate(text: bytes) -> Iterator[Pair]:
    """Every function of a file that compiles by itself, in order, inner ones not apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return
        lines = text.splitlines(keepends=True)
        for body in [tree.body, *(n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef))]:
            for node in body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    source = _dedented(lines[node.lineno - 1 : node.end_lineno], node.col_offset)
                    if len(source) <= MOST_SOURCE and (pair := translate(source)):
                        yield pair


def _dedented(lines: list[bytes], width: int) -> bytes:
    # A line that starts farther left belongs to a string, and shows that the function is not apart.
    return b"".join(line[width:] if not line[:width].strip() else line for line in lines)


def translate(source: bytes) -> Pair | None:
    """One function's listing, or None where it does not compile alone."""
    try:
        module = compile(source, "function", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    codes = [constant for constant in module.co_consts if isinstance(constant, types.CodeType)]
    if len(codes) != 1:
        return None
    starts = np.cumsum([0, *map(len, source.splitlines(keepends=True))])
    listing: list[int] = []
    origin: list[int] = []
    for instruction in dis.get_instructions(codes[0]):
        if instruction.opname in _BOOKKEEPING:
            continue
        tokens = [_TOKEN_OF[instruction.opname], *_argument(instruction)]
        line, _, column, _ = instruction.positions or (None,) * 4
        at = -1 if line is None or column is None else int(starts[line - 1]) + column
        listing += tokens
        origin += [at] * len(tokens)
    return Pair(
        np.frombuffer(source, np.uint8).astype(np.int64),
        np.array([*listing, END]),
        np.array([*origin, -1]),
    )


def _argument(instruction: dis.Instruction) -> bytes:
    """A name or a constant as text; nothing for a number, a long constant, or code."""
    if instruction.opcode not in _SPELT:
        return b""
    value = instruction.argval
    if isinstance(value, types.CodeType):
        return value.co_name.encode()
    is_name = instruction.opcode not in dis.hasconst
    text = (str(value) if is_name else repr(value)).encode(errors="replace")
    return text if len(text) <= MOST_CONSTANT else b""


@functools.cache
def _likeliest() -> dict[tuple[int, ...], int]:
    """The likeliest token of a listing after the last two, one or none, as trained on."""
    seen: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for pair in _pairs("train").items:
        tokens = [TRANSLATE, TRANSLATE, *pair.listing.tolist()]
        for at in range(2, len(tokens)):
            for known in range(3):
                seen[tuple(tokens[at - known : at])][tokens[at]] += 1
    return {before: counts.most_common(1)[0][0] for before, counts in seen.items()}


def _trigram(inputs: IntArray) -> IntArray:
    table = _likeliest()
    answers = np.full_like(inputs, table[()])
    for row, tokens in enumerate(inputs.tolist()):
        first = tokens.index(TRANSLATE)
        padded = [TRANSLATE, *tokens[first:]]
        for at in range(1, len(padded)):
            for before in (tuple(padded[at - 1 : at + 1]), (padded[at],)):
                if before in table:
                    answers[row, first + at - 1] = table[before]
                    break
    return answers


TASK = TaskSpec(
    build=Translation,
    config=Config,
    title="Functions to bytecode",
    family="text",
    version=1,
    metric="accuracy",
    ceiling=1.0,
    source="the running interpreter's standard library, and its compiler",
    floor_solver="the likeliest token of a listing after the two before it",
    real=True,
)
