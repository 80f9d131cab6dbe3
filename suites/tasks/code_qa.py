"""Read real modules, then answer a question whose answer their syntax tree knows.

Source: `lcbench.corpus`, read by `ast`. Three kinds of question: the default of a parameter, the
module a name is imported from, the first base of a class. Of several statements that would answer
it the last counts, as it does for Python. Between evidence and question stands at least one more
statement of the kind, with another answer, so the nearest is never the one; and answers that many
questions share are asked as often as rare ones, so guessing without reading gains little.
"""

import ast
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcbench.corpus import SEPARATOR, Document, documents_of, load_corpus
from lcbench.floors import measured_floor
from lcbench.task import IGNORE, Batch, IntArray, Solver, Split, Task, TaskConfig, TaskSpec

NUM_BYTES = 256
ASK = 256
"""The token before a question."""
KINDS = {"default": b"=", "import": b"<-", "base": b"("}
"""What ends a question of each kind: `open.mode=`, `dataclass<-`, `Popen(`."""
END = ord("\n")
"""Ends an answer."""
MOST_ANSWER, MOST_TAIL, MOST_SPAN = 24, 64, 256
"""Bytes of the longest answer, question with answer, and statement that are asked about."""
SPLIT_BYTES = {"train": 6_000_000, "validation": 2_000_000, "test": 2_000_000}
"""Source parsed of each split, at most: parsing all of it takes longer than a short run."""
FEWEST = 16
"""Facts that a context must leave room for."""
_TRIES = 8
_NEVER = 2**62
_MARKS = {0: "␀", ord("\t"): "⇥", ord("\n"): "↵", ord("\r"): "␍", ASK: "‹ask›"}


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Nothing to choose: the text is what the interpreter brings."""


class Fact(NamedTuple):
    """What one statement tells, its places in bytes of the text."""

    kind: str
    question: bytes
    answer: bytes
    begin: int
    """Of what must be read, from the name asked about to the answer or the other way round."""
    end: int
    at: int
    """Start of the answer."""


class CodeQA(Task[Config]):
    """Text, a question, its answer; asked are the answer's bytes and the line break after it."""

    is_text = True

    @property
    def vocab_size(self) -> int:
        """The 256 values of a byte, and the token before a question."""
        return NUM_BYTES + 1

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        """Draw facts, and for each where the text that tells it breaks off to ask.

        Raises:
            ValueError: A context that holds too few statements with their questions.
        """
        facts = _facts(self.split)
        chosen, ends = _place(rng, facts, _fitting(self.split, context), batch, context)
        starts = ends + facts.tail_length[chosen] - context
        windows = np.lib.stride_tricks.sliding_window_view(facts.text, context)
        inputs = windows[starts].astype(np.int64)
        # Question and answer stand behind the text; the window's own last bytes give way.
        columns = np.arange(context - MOST_TAIL, context)
        rank = columns - (context - facts.tail_length[chosen])[:, None]  # [B, MOST_TAIL]
        tails = np.take_along_axis(facts.tail[chosen], np.maximum(rank, 0), axis=1)
        inputs[:, -MOST_TAIL:] = np.where(rank >= 0, tails, inputs[:, -MOST_TAIL:])
        byte = rank - facts.answer_rank[chosen][:, None] + 1
        evidence = (facts.at[chosen] - starts)[:, None] + byte
        targets, distances = np.full_like(inputs, IGNORE), np.zeros_like(inputs)
        following = np.concatenate([inputs[:, 1:], np.full((batch, 1), END)], axis=1)
        targets[:, -MOST_TAIL:] = np.where(byte >= 0, following[:, -MOST_TAIL:], IGNORE)
        distances[:, -MOST_TAIL:] = np.where(byte >= 0, columns - evidence, 0)
        return Batch(inputs, targets, distances)

    def floor(self, context: int) -> float:
        """What the best solver scores on the test split."""
        return measured_floor(CodeQA, self.config, TASK.metric, context)

    def data_hash(self) -> str:
        """SHA-256 over the paths and contents of the library's files."""
        return load_corpus().data_hash

    def solvers(self) -> dict[str, Solver]:
        """Guesses from the question alone, and from the nearest statement of its kind."""
        return {"unigram": _unigram, "prior": _prior, "nearest": _nearest}

    def render(self, token: int) -> str:
        r"""The character, a mark for a blank or the question's start, or `\xNN`."""
        if token in _MARKS:
            return _MARKS[token]
        return chr(token) if 32 <= token < 127 else f"\\x{token:02x}"


class _Facts(NamedTuple):
    """The facts of a split: `text` of its files, the rest one value a fact."""

    text: NDArray[np.uint8]
    tail: IntArray
    """`[N, MOST_TAIL]` question and answer, filled up with 0."""
    tail_length: IntArray
    answer_rank: IntArray
    """Where in the tail the answer starts."""
    begin: IntArray
    end: IntArray
    at: IntArray
    decoy: IntArray
    """Bytes from `end` to the end of the next statement of the kind that tells something else."""
    holds: IntArray
    """Bytes after `end` in which no later statement answers the same question."""
    weight: NDArray[np.float64]


class _Fitting(NamedTuple):
    """The facts that fit a context, with the running sum of their weights."""

    facts: IntArray
    upto: NDArray[np.float64]


@functools.cache
def _documents(split: Split) -> tuple[Document, ...]:
    return tuple(documents_of(split, SPLIT_BYTES[split]))


@functools.cache
def _all_facts(split: Split) -> tuple[Fact, ...]:
    """Every statement that answers a question, in the order of the text."""
    found: list[Fact] = []
    offset = 0
    for document in _documents(split):
        try:
            tree = ast.parse(document.text)
        except (SyntaxError, ValueError):
            tree = ast.Module([], [])
        lines = np.cumsum([0, *map(len, document.text.splitlines(keepends=True))]) + offset
        found += facts_of(tree, document.text, offset, lines)
        offset += len(document.text) + len(SEPARATOR)
    return tuple(sorted(found, key=lambda fact: fact.begin))


def facts_of(tree: ast.Module, text: bytes, offset: int, lines: IntArray) -> Iterator[Fact]:
    """The facts of one file, whose lines start at `lines`."""

    def span(node: ast.expr | ast.arg | ast.alias) -> tuple[int, int]:
        last = node.end_lineno or node.lineno
        return (
            int(lines[node.lineno - 1]) + node.col_offset,
            int(lines[last - 1]) + (node.end_col_offset or 0),
        )

    def fact(kind: str, name: str, begin: int, answer: tuple[int, int], end: int) -> Fact:
        told = text[answer[0] - offset : answer[1] - offset]
        return Fact(kind, name.encode() + KINDS[kind], told, begin, end, answer[0])

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = int(lines[node.lineno - 1]) + node.col_offset
            for argument, default in _defaults(node.args):
                answer = span(default)
                yield fact("default", f"{node.name}.{argument.arg}", start, answer, answer[1])
        elif isinstance(node, ast.ClassDef) and node.bases:
            start = int(lines[node.lineno - 1]) + node.col_offset
            answer = span(node.bases[0])
            yield fact("base", node.name, start, answer, answer[1])
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            start = int(lines[node.lineno - 1]) + node.col_offset
            at = offset + text.index(node.module.encode(), start - offset + len("from "))
            for alias in node.names:
                yield fact("import", alias.name, at, (at, at + len(node.module)), span(alias)[1])


def _defaults(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr]]:
    placed = [*arguments.posonlyargs, *arguments.args]
    yield from zip(placed[len(placed) - len(arguments.defaults) :], arguments.defaults, strict=True)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield argument, default


class _Asked(NamedTuple):
    """A fact that can be asked, with its `decoy` and `holds` as `_Facts` has them."""

    fact: Fact
    decoy: int
    holds: int


@functools.cache
def _asked(split: Split) -> tuple[_Asked, ...]:
    everything = _all_facts(split)
    return tuple(
        _Asked(fact, decoy, holds)
        for fact, decoy, holds in zip(
            everything, _bytes_to_decoy(everything), _bytes_until_repeated(everything), strict=True
        )
        if 0 < len(fact.answer) <= MOST_ANSWER
        and len(_tail(fact)) <= MOST_TAIL
        and fact.end - fact.begin <= MOST_SPAN
        and b"\n" not in fact.answer
        and decoy <= holds
    )


@functools.cache
def _facts(split: Split) -> _Facts:
    facts = [asked.fact for asked in _asked(split)]
    tails = [_tail(fact) for fact in facts]
    alike = Counter((fact.kind, fact.answer) for fact in facts)
    distinct = Counter(kind for kind, _ in alike)
    text = SEPARATOR.join(document.text for document in _documents(split)) + bytes(MOST_TAIL)
    return _Facts(
        text=np.frombuffer(text, np.uint8),
        tail=np.array([tail + [0] * (MOST_TAIL - len(tail)) for tail in tails]),
        tail_length=np.array([len(tail) for tail in tails]),
        answer_rank=np.array([1 + len(fact.question) for fact in facts]),
        begin=np.array([fact.begin for fact in facts]),
        end=np.array([fact.end for fact in facts]),
        at=np.array([fact.at for fact in facts]),
        decoy=np.array([asked.decoy for asked in _asked(split)]),
        holds=np.array([asked.holds for asked in _asked(split)]),
        weight=np.array([1 / alike[f.kind, f.answer] / distinct[f.kind] for f in facts]),
    )


def _tail(fact: Fact) -> list[int]:
    return [ASK, *fact.question, *fact.answer]


def _bytes_until_repeated(facts: Sequence[Fact]) -> list[int]:
    """Bytes from the end of each fact to the next that answers the same question."""
    next_begin: dict[tuple[str, bytes], int] = defaultdict(lambda: _NEVER)
    holds: list[int] = []
    for fact in reversed(facts):
        holds.append(next_begin[fact.kind, fact.question] - fact.end)
        next_begin[fact.kind, fact.question] = fact.begin
    return holds[::-1]


def _bytes_to_decoy(facts: Sequence[Fact]) -> list[int]:
    """Bytes from the end of each fact to that of the next of its kind with another answer."""
    after: dict[str, tuple[Fact, Fact | None]] = {}
    decoys: list[int] = []
    for fact in reversed(facts):
        following, other = after.get(fact.kind, (fact, None))
        decoy = following if following.answer != fact.answer else other
        decoys.append(decoy.end - fact.end if decoy else _NEVER)
        after[fact.kind] = (fact, decoy)
    return decoys[::-1]


@functools.lru_cache(maxsize=32)
def _fitting(split: Split, context: int) -> _Fitting:
    facts = _facts(split)
    fits = facts.decoy <= context - (facts.tail_length + facts.end - facts.begin)
    # So that no window starts before the text does.
    fits &= facts.end >= context
    if context < MOST_TAIL or fits.sum() < FEWEST:
        raise ValueError(
            f"code-qa's {split} split has {fits.sum():,} facts that fit a context of {context:,};"
            f" ask for at least {MOST_TAIL} and less than the {len(facts.text):,} bytes it parses"
        )
    index = np.flatnonzero(fits)
    return _Fitting(index, np.cumsum(facts.weight[index]))


def _place(
    rng: np.random.Generator, facts: _Facts, fitting: _Fitting, batch: int, context: int
) -> tuple[IntArray, IntArray]:
    """Facts, and where the text breaks off after each: uniform in what the context leaves."""
    chosen, gaps = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
    left = np.arange(batch)
    for _ in range(_TRIES):
        drawn = rng.random(len(left)) * fitting.upto[-1]
        chosen[left] = fitting.facts[np.searchsorted(fitting.upto, drawn, side="right")]
        fact = chosen[left]
        room = context - facts.tail_length[fact] - (facts.end - facts.begin)[fact]
        gaps[left] = rng.integers(facts.decoy[fact], room + 1)
        # Drawn again, the fact too, where a later statement answers first: the distance stays free.
        left = left[gaps[left] > facts.holds[fact]]
    gaps = np.minimum(gaps, facts.holds[chosen])
    ends = np.minimum(facts.end[chosen] + gaps, len(facts.text) - MOST_TAIL)
    return chosen, ends


@functools.cache
def _next_bytes() -> dict[tuple[bytes, bytes], int]:
    """The likeliest byte after each (mark of a kind, start of an answer), as trained on."""
    seen: dict[tuple[bytes, bytes], Counter[int]] = defaultdict(Counter)
    for (fact, *_), weight in zip(_asked("train"), _facts("train").weight, strict=True):
        answer = fact.answer + bytes([END])
        for at, byte in enumerate(answer):
            seen[KINDS[fact.kind], answer[:at]][byte] += weight
    return {start: counts.most_common(1)[0][0] for start, counts in seen.items()}


class _Question(NamedTuple):
    """What a solver reads of one example."""

    text: bytes
    name: bytes
    mark: bytes
    given: bytes
    """The bytes of the answer that the example shows, all but the last to be told."""
    first: int
    """The position at which the first byte of the answer is asked."""


def _read(tokens: IntArray) -> _Question:
    at = int(np.flatnonzero(tokens == ASK)[-1])
    text, tail = (part.astype(np.uint8).tobytes() for part in (tokens[:at], tokens[at + 1 :]))
    found = [(tail.find(mark), mark) for mark in KINDS.values() if mark in tail]
    rank, mark = min(found)
    answer = rank + len(mark)
    return _Question(text, tail[:rank], mark, tail[answer:], at + answer)


def _answer_all(inputs: IntArray, guess: Callable[[_Question, bytes], int]) -> IntArray:
    """Guesses, byte by byte, with the bytes before as they are in the example: `[B, T]`."""
    answers = np.zeros_like(inputs)
    for row, tokens in enumerate(inputs):
        question = _read(tokens)
        for at in range(len(question.given) + 1):
            answers[row, question.first + at] = guess(question, question.given[:at])
    return answers


def _unigram(inputs: IntArray) -> IntArray:
    return np.full_like(inputs, END)


def _prior(inputs: IntArray) -> IntArray:
    table = _next_bytes()
    return _answer_all(inputs, lambda asked, start: table.get((asked.mark, start), END))


def _nearest(inputs: IntArray) -> IntArray:
    table = _next_bytes()

    def guess(asked: _Question, start: bytes) -> int:
        told = _nearest_statement(asked)
        if told.startswith(start) and told:
            return (told + bytes([END]))[len(start)]
        return table.get((asked.mark, start), END)

    return _answer_all(inputs, guess)


def _nearest_statement(asked: _Question) -> bytes:
    """What the last statement of the kind tells, whatever it is about."""
    patterns = {
        KINDS["default"]: rb"\b%s\s*=\s*([^,)\s]+)" % re.escape(asked.name.rpartition(b".")[2]),
        KINDS["import"]: rb"\bfrom\s+([\w.]+)\s+import\b",
        KINDS["base"]: rb"\bclass\s+\w+\(([\w.]+)",
    }
    found = re.findall(patterns[asked.mark], asked.text)
    return found[-1] if found else b""


TASK = TaskSpec(
    build=CodeQA,
    config=Config,
    title="Questions about real modules",
    family="reading",
    version=1,
    metric="exact_match",
    ceiling=1.0,
    source="the running interpreter's standard library, questions from its syntax trees",
    floor_solver="the nearest statement of the kind asked, else the likeliest answer",
    real=True,
)
