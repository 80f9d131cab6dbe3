"""What each task on real text says of the text, held against the tools that know."""

import ast
import dis
import io
import tokenize
import types
from typing import cast, get_args

import numpy as np
import pytest

from lcbench import code_words
from lcbench.corpus import load_corpus, text_of
from lcbench.floors import solver_scores
from lcbench.suites.tasks import (
    code_class,
    code_defs,
    code_lm,
    code_names,
    code_qa,
    code_tagging,
    doc_match,
    translation,
)
from lcbench.task import IGNORE, Batch, Split

SPLITS: tuple[Split, ...] = get_args(Split)


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def as_bytes(tokens: np.ndarray) -> bytes:
    return tokens.astype(np.uint8).tobytes()


def test_code_lm_distances_lead_to_the_same_byte_of_the_same_identifier() -> None:
    batch = code_lm.CodeLM(code_lm.Config(), "test").sample(rng(), 32, 512)
    assert batch.distances is not None
    rows, at = np.nonzero(batch.distances)
    assert len(rows) > 0.05 * batch.inputs.size
    evidence = at - batch.distances[rows, at]
    assert evidence.min() >= 1
    assert np.array_equal(batch.inputs[rows, evidence], batch.targets[rows, at])
    # What was read of the identifier is what stands before the evidence.
    assert np.array_equal(batch.inputs[rows, evidence - 1], batch.inputs[rows, at])


def test_code_lm_leaves_firsts_and_short_names_out() -> None:
    text = b"alpha = self.alpha + beta\nif x: x = alphabet\nalpha"
    back = code_lm.bytes_back(text)
    assert {at: int(far) for at, far in enumerate(back) if far} == {
        **dict.fromkeys(range(14, 18), 13), **dict.fromkeys(range(46, 50), 32)
    }  # fmt: skip


def test_code_lm_trains_without_distances() -> None:
    assert code_lm.CodeLM(code_lm.Config(), "train").sample(rng(), 1, 64).distances is None


def tokenized(text: bytes) -> np.ndarray:
    """Kinds as `tokenize` has them, a string's prefix counted as a name."""
    lines = text.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)])
    kinds = np.zeros(len(text), np.int64)
    open_at = None
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        name = tokenize.tok_name[token.type]
        begin, end = (
            int(starts[line - 1]) + len(lines[line - 1].decode()[:column].encode())
            if 0 < line <= len(lines)
            else len(text)
            for line, column in (token.start, token.end)
        )
        # From Python 3.12 on, a formatted string is the tokens from its start to its end.
        if name == "FSTRING_START":
            open_at = begin
        elif name == "FSTRING_END":
            begin, name, open_at = open_at, "STRING", None
        if open_at is None and name in ("NAME", "NUMBER", "OP", "STRING", "COMMENT"):
            kinds[begin:end] = {"OP": 3}.get(name) or code_tagging.KINDS.index(name.lower())
            prefix = text[begin:end].lstrip(b"rRbBfFuU") if name == "STRING" else text[begin:end]
            kinds[begin : end - len(prefix)] = 1
    return kinds


def test_code_tagging_labels_as_the_tokenizer_does() -> None:
    checked = 0
    for path, text in load_corpus().documents[11::60]:
        try:
            truth = tokenized(text)
        except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):
            continue
        checked += len(text)
        assert np.array_equal(code_tagging.lex(text).kind, truth), path
    assert checked > 100_000


def test_code_tagging_counts_from_the_quotes_that_opened() -> None:
    kind, depth = code_tagging.lex(b'x = rb"""a\n# b\n"""  # "c')
    shown = "".join(code_tagging.KINDS[k][0] for k in kind)
    assert shown == "nbobnn" + "s" * 12 + "bb" + "c" * 4
    assert depth.tolist() == [0, 0, 0, 0, 0, 1, *range(12), 0, 0, *range(4)]


def test_code_tagging_windows_start_where_no_token_is_open() -> None:
    task = code_tagging.CodeTagging(code_tagging.Config(), "test")
    batch = task.sample(rng(), 64, 512)
    text = text_of("test").tobytes()
    whole = code_tagging.lex(text).kind
    for tokens, targets in zip(batch.inputs, batch.targets, strict=True):
        at = text.index(as_bytes(tokens))
        assert at == 0 or text[at - 1 : at] in (b"\n", b"\0")
        assert np.array_equal(whole[at : at + 512] + 256, targets)
    assert (batch.targets == 256 + code_tagging.KINDS.index("string")).any(axis=1).all()
    assert (batch.distances >= 64).mean() > 0.2


def test_code_tagging_line_by_line_is_right_outside_of_long_strings_alone() -> None:
    task = code_tagging.CodeTagging(code_tagging.Config(), "test")
    text = np.frombuffer(b'a = \'b\'  # c\nd(1)\n"""e\nf\n"""\n', np.uint8)[None].astype(int)
    guess, truth = task.solvers()["line"](text)[0], code_tagging.lex(as_bytes(text)).kind + 256
    assert "".join("01"[int(right)] for right in guess == truth) == "1" * 23 + "00" + "111" + "0"


def words(text: bytes) -> list[str]:
    """As `code-defs` reads them, names by the order of their first mention."""
    names: dict[int, str] = {}
    tokens = code_words.words_of(text)
    return [
        code_words.WORDS[token]
        if token < code_words.FIRST_NAME
        else names.setdefault(token, f"n{len(names)}")
        for token in tokens
    ]


def test_code_defs_reads_keywords_and_names_and_nothing_else() -> None:
    text = (
        b"def f(self, a, *b): # def g\n    return rb'def h' + \"x\" * 3\n"
        b"class C(a):\n    '''class D'''\n    def f(cls): f\"{a}\"\n"
    )
    expected = ["¶def", "n0", "n1", "n2", "return", "¶class", "n3", "n1", "def", "n0"]
    assert words(text) == expected


def test_code_defs_asks_for_names_defined_once_and_tells_what_followed_them() -> None:
    for context in (32, 100, 512, 2048):
        batch = code_defs.CodeDefs(code_defs.Config(), "test").sample(rng(), 64, context)
        rows, at = np.nonzero(batch.targets != IGNORE)
        number = len(rows) // 64
        body = context - 2 * number
        assert number == min(4, max(2, context // 64))
        assert at.min() == body + 1
        assert batch.distances is not None
        evidence = at - batch.distances[rows, at]
        answers = batch.targets[rows, at]
        assert (evidence < body).all()
        assert np.array_equal(batch.inputs[rows, evidence], answers)
        # What was read at the answer's place is what stands at the question's.
        for back in (0, 1):
            asked = batch.inputs[rows, at - back]
            assert np.array_equal(batch.inputs[rows, evidence - 1 - back], asked)
        text = batch.inputs[:, :body]
        is_defined = text[:, :-2] < len(code_words.MARKS)
        for offset, tokens in ((1, batch.inputs[rows, at]), (2, answers)):
            found = text[:, offset : offset - 2 or None][:, : is_defined.shape[1]]
            alike = (found[rows] == tokens[:, None]) & is_defined[rows]
            assert (alike.sum(axis=1) == 1).all()
        assert (is_defined.sum(axis=1) <= number + 2).all()


def test_code_defs_renames_in_every_example_and_never_by_what_a_name_is() -> None:
    task = code_defs.CodeDefs(code_defs.Config(), "test")
    batch = task.sample(rng(), 2000, 128)
    answers = batch.targets[batch.targets != IGNORE] - code_words.FIRST_NAME
    counts = np.bincount(answers, minlength=64)
    # 62.5 expected of each: six standard deviations.
    assert len(answers) == 4000
    assert counts.min() > 62.5 - 6 * 7.9
    assert counts.max() < 62.5 + 6 * 7.9


def test_code_defs_answers_lie_anywhere() -> None:
    batch = code_defs.CodeDefs(code_defs.Config(), "test").sample(rng(), 500, 512)
    assert batch.distances is not None
    far = np.sort(batch.distances[batch.distances > 0])
    shares = np.searchsorted(far, [128, 256, 384]) / len(far)
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.1)


@pytest.mark.parametrize("context", [495, 2048])
def test_code_defs_finds_an_example_where_few_stretches_fit(context: int) -> None:
    # One stretch in eight to twelve fits, so that some of these examples take a hundred draws.
    task = code_defs.CodeDefs(code_defs.Config(), "train")
    batch = task.sample(rng(), 2_000_000 // context, context)
    assert ((batch.targets != IGNORE).sum(axis=1) == 4).all()


@pytest.mark.parametrize("context", [4, 8, 100_000])
def test_code_defs_names_the_context_it_cannot_take(context: int) -> None:
    with pytest.raises(ValueError, match=rf"{context:,} tokens .* ask for a context of"):
        code_defs.CodeDefs(code_defs.Config(), "test").sample(rng(), 1, context)


def test_code_defs_names_the_numbers_that_are_too_few() -> None:
    config = code_defs.Config(num_names=40, num_questions=20, most_others=None)
    with pytest.raises(ValueError, match=r"num_names=40 .* raise num_names"):
        code_defs.CodeDefs(config, "test").sample(rng(), 1, 2048)


@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("context", [48, 512, 3000])
def test_code_names_asks_for_what_stands_most_often(context: int, top: int) -> None:
    task = code_names.CodeNames(code_names.Config(top=top), "test")
    batch = task.sample(rng(), 40, context)
    assert (batch.targets[:, :-top] == IGNORE).all()
    first, other = code_words.FIRST_NAME, code_words.FIRST_NAME + 16
    assert np.array_equal(batch.inputs[:, -top:], np.tile(other + 1 + np.arange(top), (40, 1)))
    for text, answers in zip(batch.inputs[:, :-top], batch.targets[:, -top:], strict=True):
        counts = np.bincount(text[(text >= first) & (text < other)] - first, minlength=16)
        ranked = np.argsort(-counts)
        assert np.array_equal(first + ranked[:top], answers)
        assert (np.diff(counts[ranked[: top + 1]]) < 0).all()


def test_code_names_are_the_texts_own_written_anew() -> None:
    task = code_names.CodeNames(code_names.Config(), "test")
    words, first = code_words.words_in("test"), code_words.FIRST_NAME
    renamed = task.sample(rng(), 200, 65)
    answers = set((renamed.targets[:, -1] - first).tolist())
    assert answers == set(range(16))
    windows = np.lib.stride_tricks.sliding_window_view(words, 64)
    keywords = np.where(windows < first, windows, -1)
    for tokens in renamed.inputs[:5, :-1]:
        shape = np.where(tokens < first, tokens, -1)
        sources = windows[(keywords == shape).all(axis=1)]
        # One of the stretches with these keywords has these names: each is written one way.
        assert any(
            all(len(set(tokens[source == word].tolist())) == 1 for word in set(source.tolist()))
            for source in sources
        )
        told = tokens[(tokens >= first) & (tokens < first + 16)]
        least = np.unique(told, return_counts=True)[1].min()
        assert any(
            np.unique(source[tokens == first + 16], return_counts=True)[1].max(initial=0) <= least
            for source in sources
        )


@pytest.mark.parametrize("context", [1, 2, 10**8])
def test_code_names_says_which_context_it_cannot_take(context: int) -> None:
    with pytest.raises(ValueError, match=rf"{context:,} tokens .* ask for a context of"):
        code_names.CodeNames(code_names.Config(), "test").sample(rng(), 1, context)


MODULE = b"""from json.decoder import JSONDecoder, JSONDecodeError
from os import path
def open(file, mode='r', *, size=-1, late): pass
class Reader(io.Base): pass
class Writer(Stream): pass
async def open(file, mode="w"): pass
"""


def test_code_qa_reads_questions_off_the_tree() -> None:
    lines = np.cumsum([0, *map(len, MODULE.splitlines(keepends=True))])
    facts = code_qa.facts_of(ast.parse(MODULE), MODULE, 0, lines)
    found = sorted(facts, key=lambda fact: fact.begin)
    assert [(fact.question, fact.answer) for fact in found] == [
        (b"JSONDecoder<-", b"json.decoder"), (b"JSONDecodeError<-", b"json.decoder"),
        (b"path<-", b"os"), (b"open.mode=", b"'r'"), (b"open.size=", b"-1"),
        (b"Reader(", b"io.Base"), (b"Writer(", b"Stream"), (b"open.mode=", b'"w"'),
    ]  # fmt: skip
    for fact in found:
        assert MODULE[fact.at : fact.at + len(fact.answer)] == fact.answer
        assert fact.begin <= fact.at < fact.end


@pytest.mark.parametrize("context", [64, 500, 4096])
def test_code_qa_asks_what_the_text_before_tells_last(context: int) -> None:
    batch = code_qa.CodeQA(code_qa.Config(), "test").sample(rng(), 200, context)
    assert batch.distances is not None
    num_bases = num_decoys = 0
    for tokens, targets, back in zip(*batch, strict=True):
        asked = np.flatnonzero(targets != IGNORE)
        answer = as_bytes(targets[asked[:-1]])
        assert targets[asked[-1]] == ord("\n")
        evidence = asked[0] - back[asked[0]]
        assert as_bytes(tokens[evidence : evidence + len(answer)]) == answer
        mark = int(np.flatnonzero(tokens == code_qa.ASK)[0])
        question, text = as_bytes(tokens[mark + 1 : asked[0] + 1]), as_bytes(tokens[:mark])
        name = question.removesuffix(b"=").removesuffix(b"<-").removesuffix(b"(")
        assert name.rpartition(b".")[0] in text
        assert name.rpartition(b".")[2] in text
        if question.endswith(b"("):
            later = text[evidence + len(answer) :]
            assert b"class " + question not in later
            num_bases += 1
            num_decoys += b"class " in later
    assert num_decoys == num_bases
    assert num_bases or context < 500
    spread = batch.distances.max(axis=1) / context
    assert spread.min() < 0.4
    assert spread.max() > 0.85


def test_code_qa_names_the_context_it_cannot_take() -> None:
    with pytest.raises(ValueError, match="facts that fit a context of 63"):
        code_qa.CodeQA(code_qa.Config(), "test").sample(rng(), 1, 63)


def test_code_class_labels_the_package() -> None:
    names = code_class.packages(8)
    for split in SPLITS:
        batch = code_class.CodeClass(code_class.Config(), split).sample(rng(), 16, 512)
        assert (batch.targets[:, :-1] == IGNORE).all()
        for tokens, label in zip(batch.inputs, batch.targets[:, -1], strict=True):
            package = names[label - code_class.ASK - 1]
            own = [t for p, t in load_corpus().split(split) if p.startswith(package + "/")]
            assert as_bytes(tokens[:-1]) in b"\0".join(own)
    assert len(set(names)) == 8


def test_code_class_says_what_it_cannot_ask() -> None:
    with pytest.raises(ValueError, match="at most"):
        code_class.CodeClass(code_class.Config(), "test").sample(rng(), 1, 10**8)
    with pytest.raises(ValueError, match="num_packages must be at most"):
        code_class.packages(1000)
    with pytest.raises(ValueError, match="num_packages must be at least 2, got 1"):
        code_class.Config(num_packages=1)


@pytest.mark.parametrize("context", [200, 1001])
def test_doc_match_pairs_are_of_one_module_or_of_neighbours(context: int) -> None:
    batch = doc_match.DocMatch(doc_match.Config(), "test").sample(rng(), 40, context)
    half = (context - 2) // 2
    same = batch.targets[:, -1] == doc_match.SAME
    assert 8 < same.sum() < 32
    for tokens, is_same in zip(batch.inputs, same, strict=True):
        sides = as_bytes(tokens[:half]), as_bytes(tokens[-half - 1 : -1])
        homes = [
            {path for path, text in load_corpus().split("test") if side in text} for side in sides
        ]
        assert bool(homes[0] & homes[1]) == is_same
        folders = [{path.rpartition("/")[0] for path in paths} for paths in homes]
        assert folders[0] & folders[1]


def test_doc_match_stretches_lie_alike_in_one_module_and_in_two() -> None:
    text = np.arange(250, dtype=np.uint8)
    pairs = [
        [doc_match.stretch(text, 100, np.array([a, b, c]))[0] for c in (0.2, 0.8)]
        for a, b in ((0.0, 0.99), (0.5, 0.1), (0.3, 0.3))
    ]
    assert pairs == [[0, 150], [5, 125], [15, 115]]


def test_doc_match_says_when_no_module_is_long_enough() -> None:
    with pytest.raises(ValueError, match="doc-match needs a context of at least 4"):
        doc_match.DocMatch(doc_match.Config(), "test").sample(rng(), 1, 10**7)


def test_translation_spells_what_the_compiler_makes() -> None:
    source = b"def f(x, y):\n    return x if y else len('a b')\n"
    pair = translation.translate(source)
    assert pair is not None
    task = translation.Translation(translation.Config(), "test")
    words = "".join(task.render(int(token)) for token in pair.listing)
    assert "LOAD_FAST" in words
    assert "len" in words
    assert "'a b'" in words
    assert words.endswith("‹end›")
    operations = [
        translation.OPERATIONS[token - translation.END - 1]
        for token in pair.listing
        if token > translation.END
    ]
    scope: dict[str, object] = {}
    exec(source, scope)
    function = cast(types.FunctionType, scope["f"])
    listed = [instruction.opname for instruction in dis.get_instructions(function)]
    assert operations == [name for name in listed if name in operations]
    at = pair.listing.tolist().index(ord("l"))
    assert source[pair.origin[at] :].startswith(b"len(")


def test_translation_asks_for_every_listing_in_the_order_of_the_sources() -> None:
    task = translation.Translation(translation.Config(), "test")
    batch: Batch = task.sample(rng(), 20, 2048)
    several = 0
    for tokens, targets in zip(batch.inputs, batch.targets, strict=True):
        mark = int(np.flatnonzero(tokens == translation.TRANSLATE)[0])
        source = as_bytes(tokens[:mark]).lstrip(b"\0").decode()
        names = [node.name for node in ast.parse(source).body if hasattr(node, "name")]
        assert (targets[mark:] == translation.END).sum() == len(names)
        wanted = targets[mark:]
        assert np.array_equal(tokens[mark + 1 :], wanted[:-1])
        assert wanted[-1] == translation.END
        several += len(names) > 1
    assert several > 5


def test_translation_says_which_context_is_too_short() -> None:
    with pytest.raises(ValueError, match="needs a context of at least"):
        translation.Translation(translation.Config(), "test").sample(rng(), 1, 8)


def test_the_translation_of_another_compiler_is_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    task = translation.Translation(translation.Config(), "test")
    here = task.data_hash()
    assert here != load_corpus().data_hash
    monkeypatch.setattr(translation.sys, "version_info", (3, 99))
    assert task.data_hash() != here


@pytest.mark.parametrize(
    ("build", "config", "metric", "stated"),
    [
        (code_tagging.CodeTagging, code_tagging.Config(), "accuracy", (0.5, 0.8)),
        (code_qa.CodeQA, code_qa.Config(), "exact_match", (0.1, 0.5)),
        (code_defs.CodeDefs, code_defs.Config(), "accuracy", (0.15, 0.3)),
        (code_names.CodeNames, code_names.Config(), "accuracy", (0.25, 0.4)),
        (code_class.CodeClass, code_class.Config(), "accuracy", (0.2, 0.6)),
        (doc_match.DocMatch, doc_match.Config(), "accuracy", (0.5, 0.75)),
        (translation.Translation, translation.Config(), "accuracy", (0.35, 0.6)),
    ],
)
def test_no_shortcut_comes_near_the_ceiling(build, config, metric, stated) -> None:
    scores = solver_scores(build(config, "test"), metric, 512)
    assert stated[0] < max(scores.values()) < stated[1]
