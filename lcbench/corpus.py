"""Real text on every machine: the running interpreter's standard library, split by file."""

import functools
import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcbench.task import Split

SEPARATOR = b"\0"
"""Stands between two files; source text does not hold it."""
STRING = rb"""
    \"\"\"(?:[^\\"]|\\.|\"(?!\"\"))*(?:\"\"\"|\\?\Z) | '''(?:[^\\']|\\.|'(?!''))*(?:'''|\\?\Z)
    | \"(?:[^\"\\\n]|\\\r?.)*(?:\"|(?=\n)|\\?\Z) | '(?:[^'\\\n]|\\\r?.)*(?:'|(?=\n)|\\?\Z)"""
"""A string of Python source without its prefix, for `re.VERBOSE | re.DOTALL`; it runs to the end of
the text where nothing closes it, or of its line if it must."""

# What a person installed or a build wrote down differs from machine to machine under one version.
_SKIPPED_FOLDERS = ("site-packages", "dist-packages", "__pycache__", "config-")
# Tables of character sets, generated from one template, as are most of their neighbours.
_TABLES = ("encodings/",)
_SKIPPED_FILES = ("_sysconfigdata", "sitecustomize.py", "usercustomize.py")


class Document(NamedTuple):
    """One source file."""

    path: str
    """Relative to the corpus, with forward slashes."""
    text: bytes


@dataclass(frozen=True)
class Corpus:
    """Documents in the order of their paths."""

    documents: tuple[Document, ...]
    data_hash: str
    """SHA-256 over every path and content."""

    def split(self, split: Split) -> tuple[Document, ...]:
        """A tenth of the families for test, a tenth for validation, the rest for training."""
        return tuple(document for document in self.documents if split_of(document.path) == split)


def split_of(path: str) -> Split:
    """The split a document belongs to: its path alone decides, whatever else the corpus holds.

    Documents of one family share a split, so that no test file has a near-copy that was trained on.
    """
    if path.startswith(_TABLES):
        return "train"
    bucket = int(hashlib.sha256(family_of(path).encode()).hexdigest(), 16) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def family_of(path: str) -> str:
    """The folder and the first word of the name, without `test_`: `test/dict`.

    What was copied and adapted is mostly named alike: `test_dict` and `test_dict_version`, `bz2`
    and `bz2_codec`, one `fix_` beside another.
    """
    folder, _, name = path.rpartition("/")
    stem = name.removesuffix(".py").removeprefix("test_")
    word = re.match(r"[^\W\d_]+", stem)
    return f"{folder}/{word.group() if word else stem}"


def text_of(split: Split) -> NDArray[np.uint8]:
    """The files of a split one after another, `SEPARATOR` between them: `[bytes]`."""
    return _joined(load_corpus().data_hash, split)


@functools.cache
def _joined(_data_hash: str, split: Split) -> NDArray[np.uint8]:
    joined = SEPARATOR.join(document.text for document in load_corpus().split(split))
    return np.frombuffer(joined, np.uint8)


def documents_of(split: Split, most_bytes: int) -> Iterator[Document]:
    """Files of a split, at most so many bytes together, in no order that their paths tell."""

    def shuffled(document: Document) -> bytes:
        return hashlib.sha256(document.path.encode()).digest()

    taken = 0
    for document in sorted(load_corpus().split(split), key=shuffled):
        if taken + len(document.text) <= most_bytes:
            taken += len(document.text)
            yield document


def load_corpus() -> Corpus:
    """The running interpreter's standard library, read once a process.

    Raises:
        FileNotFoundError: The interpreter came without the source of its library.
    """
    return read_corpus(Path(sysconfig.get_paths()["stdlib"]))


@functools.cache
def read_corpus(folder: Path) -> Corpus:
    """Read every Python file under a folder, but for installed packages and build records.

    Raises:
        FileNotFoundError: There is no such file.
    """
    documents = tuple(_read_documents(folder))
    if not documents:
        raise FileNotFoundError(
            f"no Python source under {folder}: this interpreter ships its standard library frozen, "
            "zipped or compiled only; run lcbench with one that keeps the .py files (python.org, "
            "uv, conda, a Linux distribution), or leave out the tasks on real text"
        )
    sha = hashlib.sha256()
    for path, text in documents:
        sha.update(f"{path}\0{len(text)}\0".encode())
        sha.update(text)
    return Corpus(documents, sha.hexdigest())


def _read_documents(folder: Path) -> Iterator[Document]:
    """Files that can be read and are not empty, in the order of their paths."""
    for path in sorted(_source_paths(folder)):
        try:
            text = (folder / path).read_bytes()
        except OSError:
            continue
        if text:
            yield Document(path, text)


def _source_paths(folder: Path) -> Iterator[str]:
    # Walked by hand because rglob would descend into site-packages, often ten times the library.
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(_SKIPPED_FOLDERS)]
        for name in files:
            if name.endswith(".py") and not name.startswith(_SKIPPED_FILES):
                yield (Path(where) / name).relative_to(folder).as_posix()
