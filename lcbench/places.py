"""Where files of rows lie: folders of this machine, and any URL that pyarrow opens.

`RemotePath` has what readers and writers of rows use of `pathlib.Path`, so they take either.
"""

import functools
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lcbench.config import UsageError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class RemotePath:
    """A file or folder of a file system that pyarrow opens.

    Args:
        filesystem: A `pyarrow.fs.FileSystem`.
        path: Where in it.
        url: Where in the words of the person who named it.
    """

    def __init__(self, filesystem: Any, path: str, url: str) -> None:
        self.filesystem, self.path, self.url = filesystem, path.rstrip("/"), url.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        raise TypeError(f"{self.url} is not a path of this machine")

    def __truediv__(self, name: str) -> "RemotePath":
        base, mark, query = self.url.partition("?")
        url = f"{base.rstrip('/')}/{name}{mark}{query}"
        return RemotePath(self.filesystem, f"{self.path}/{name}", url)

    def __lt__(self, other: "RemotePath") -> bool:
        return self.url < other.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    def name(self) -> str:
        """The last part of it."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return PurePosixPath(self.path).suffix

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        return self._kind() != "NotFound"

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self._kind() == "Directory"

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._kind() == "File"

    def rglob(self, pattern: str) -> Iterator["RemotePath"]:
        """The files below it, at any depth, whose names match."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path, recursive=True, allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            if info.is_file and PurePosixPath(info.path).match(pattern):
                yield self / info.path.removeprefix(self.path).lstrip("/")

    def open_input(self) -> Any:
        """The file, open for reading at any place.

        Raises:
            OSError: It is not there or cannot be read.
        """
        return self.filesystem.open_input_file(self.path)

    def write_atomically(self, data: bytes) -> None:
        """Write the file so that a reader finds it whole or not at all; makes its folder.

        Raises:
            OSError: It cannot be written; what was begun has a hidden name, which no reader takes.
        """
        folder, _, name = self.path.rpartition("/")
        self.filesystem.create_dir(folder, recursive=True)
        unfinished = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
        with self.filesystem.open_output_stream(unfinished) as stream:
            stream.write(data)
        self.filesystem.move(unfinished, self.path)

    def _kind(self) -> str:
        return self.filesystem.get_file_info(self.path).type.name


Place = Path | RemotePath


def read_place(text: str | Path) -> Place:
    """A folder or file as a person names it: a path, or a URL such as `s3://bucket/results`.

    Raises:
        UsageError: A URL that pyarrow cannot open.
    """
    if isinstance(text, Path) or not _URL.match(text):
        return Path(text)
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    filesystem, path = _open(text)
    return RemotePath(filesystem, path, text)


def write_atomically(path: Place, data: bytes) -> None:
    """Write a file that is either whole or not there; makes its folder.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    if isinstance(path, RemotePath):
        path.write_atomically(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Have a rename outlast a power failure, where folders can be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.lru_cache
def _open(url: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    try:
        return FileSystem.from_uri(url)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{url} cannot be opened ({reason}); name a folder, or a URL of a kind pyarrow"
            " reads, such as s3://bucket/results"
        ) from None
