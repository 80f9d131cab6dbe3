"""Python source as words: keywords and names, without all else that it holds.

Names are numbers that their letters alone decide, so that a task may write them anew in every
example: an answer can then be read there and not be known.
"""

import functools
import hashlib
import keyword
import re
from collections.abc import Iterator

import numpy as np

from lcbench.corpus import STRING, documents_of
from lcbench.task import IntArray, Split

MARKS = ("¶def", "¶class")
"""What begins a definition at the left margin."""
WORDS = (*MARKS, *keyword.kwlist)
"""The tokens that are no names."""
FIRST_NAME = len(WORDS)
MOST_BYTES = 6_000_000
"""Source read of each split, at most: all of it would take a second more of a short run."""
_NAME_BITS = 31
_WORD = re.compile(
    rb"\#[^\n]* | [A-Za-z]{,2}(?:" + STRING + rb") | ([A-Za-z_\x80-\xff][\w\x80-\xff]*)",
    re.VERBOSE | re.DOTALL,
)
_UNNAMED = (b"self", b"cls")


@functools.cache
def words_in(split: Split) -> IntArray:
    """The words of a split's files, one file after another: `[words]`."""
    words = [word for file in documents_of(split, MOST_BYTES) for word in words_of(file.text)]
    return np.array(words, dtype=np.int64)


def words_of(text: bytes) -> Iterator[int]:
    """The tokens of a file, names by the numbers that their letters decide."""
    for match in _WORD.finditer(text):
        word = match[1]
        if word is None or word in _UNNAMED:
            continue
        if word in (b"def", b"class") and text[match.start() - 1 : match.start()] in (b"", b"\n"):
            yield MARKS.index(f"¶{word.decode()}")
        else:
            yield _token_of(word)


@functools.cache
def _token_of(word: bytes) -> int:
    """The number of a word; that of a name, from `FIRST_NAME` on, tells nothing of its use."""
    if word in _NUMBERS:
        return _NUMBERS[word]
    drawn = int.from_bytes(hashlib.blake2b(word, digest_size=4).digest(), "little")
    return FIRST_NAME + drawn % 2**_NAME_BITS


_NUMBERS = {word.encode(): token for token, word in enumerate(WORDS)}
