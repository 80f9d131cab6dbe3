"""Reads a file of rows that nobody vouches for: bounded before anything of it is unpacked.

Sizes in a Parquet file's footer may lie, and a page of a few bytes may stand for gigabytes. So
every page's own header is read first: what it says is what the decoder will make room for. Strings
stay in their dictionaries until they are known to be short, since one long string may be repeated
at the price of a bit.
"""

import math
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcbench.store import SCHEMA
from lcbench.submission_rules import Findings
from lcbench.submission_thrift import Struct, read_struct

MOST_BYTES = 1_000_000
MOST_ROWS = 20_000
MOST_UNPACKED_BYTES = 32_000_000

_MAGIC = b"PAR1"
_TAIL = struct.Struct("<I4s")
_MOST_PAGES = 100_000
_UNREADABLE = (IndexError, KeyError, TypeError, ValueError, AttributeError)
"""What comes of reading structures that are not what they should be."""
_BATCH_ROWS = 1_000
_VALUE_BYTES = 8
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_TEXTS = [f.name for f in SCHEMA if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]
_LAST_TIME = 253_402_300_799_000_000
"""The end of the year 9999, in microseconds."""
_WRITERS_KEY = b"ARROW:schema"
"""The one entry that Arrow's writer leaves in a footer."""


class _Fault(Exception):  # noqa: N818 -- it is no error of the program's
    """Why a file is not read further."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class _Page(NamedTuple):
    """What one page says of itself."""

    kind: int
    unpacked_bytes: int
    packed_bytes: int
    values: int
    has_checksum: bool


class _Chunk(NamedTuple):
    """Where the pages of one column lie."""

    name: str
    start: int
    size: int
    is_elsewhere: bool

    @classmethod
    def of(cls, column: Struct) -> "_Chunk":
        """Read it from a footer's `ColumnChunk`."""
        about = column[3]
        name = b".".join(about[3]).decode(errors="replace")
        start = min(_whole(about[9]), _whole(about.get(11, about[9])))
        return cls(name, start, _whole(about[7]), 1 in column)


def read_bounded(content: bytes, findings: Findings, *, may_be_older: bool) -> pa.Table | None:
    """The rows of a file, or None where it breaks a rule of its form; then that is noted.

    Args:
        content: The file's bytes.
        findings: Where a broken rule is noted.
        may_be_older: Whether the file may lack columns that are younger than it.
    """
    try:
        _check_size(content)
        file = pq.ParquetFile(pa.BufferReader(content), **_LIMITS)
        _check_schema(file.schema_arrow, may_be_older=may_be_older)
        _check_form(content)
        return _read(content)
    except _Fault as fault:
        findings.add(fault.rule, str(fault))
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        findings.add("parquet", f"it cannot be read: {reason[:200]}")
    return None


def read_regular(path: Path, findings: Findings) -> bytes | None:
    """The bytes of a regular file of bounded size, or None for anything else, which is noted."""
    try:
        described = path.lstat()
        if not stat.S_ISREG(described.st_mode):
            kind = "a link" if stat.S_ISLNK(described.st_mode) else "no regular file"
            findings.add("regular-file", f"it is {kind}")
            return None
        if described.st_mode & 0o111:
            findings.add("regular-file", "it can be run; take the right away with chmod a-x")
        if described.st_size > MOST_BYTES:
            message = f"it has {described.st_size:,} bytes, and at most {MOST_BYTES:,} may be"
            findings.add("size", message)
            return None
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        findings.add("regular-file", f"it cannot be read: {error.strerror or 'no reason given'}")
        return None


_LIMITS: dict[str, Any] = {
    "page_checksum_verification": True,
    "thrift_string_size_limit": MOST_BYTES,
    "thrift_container_size_limit": MOST_BYTES,
}


def _check_size(content: bytes) -> None:
    if len(content) > MOST_BYTES:
        raise _Fault("size", f"it has {len(content):,} bytes, and at most {MOST_BYTES:,} may be")
    least = 2 * len(_MAGIC) + 4
    if len(content) < least or not content.startswith(_MAGIC) or not content.endswith(_MAGIC):
        raise _Fault("parquet", "it is no Parquet file: PAR1 must be its first and last letters")


def _read_footer(content: bytes) -> tuple[Struct, int]:
    """What the footer says, and where it begins; raises `_Fault`."""
    length, _ = _TAIL.unpack(content[-_TAIL.size :])
    end = len(content) - _TAIL.size
    if not len(_MAGIC) <= end - length <= end:
        raise _Fault("parquet", "its footer begins before the file does")
    footer, last = read_struct(memoryview(content)[:end], end - length)
    if last != end:
        raise _Fault("layout", f"{end - last:,} bytes lie after its footer")
    return footer, end - length


def _check_form(content: bytes) -> None:
    """Hold footer and pages to the rules; raises `_Fault`."""
    try:
        footer, end = _read_footer(content)
        num_rows, groups, extra = _whole(footer[3]), footer[4], footer.get(5, [])
        others = [entry[1] for entry in extra if entry[1] != _WRITERS_KEY]
        columns = [_Chunk.of(column) for group in groups for column in group[1]]
    except _UNREADABLE:
        raise _Fault("parquet", "its footer cannot be read") from None
    if not 1 <= num_rows <= MOST_ROWS:
        raise _Fault("unpacked", f"it has {num_rows:,} rows, not 1 to {MOST_ROWS:,}")
    if len(groups) != 1:
        raise _Fault("layout", f"it has {len(groups)} row groups; lcbench writes one")
    if others:
        raise _Fault("layout", f"its footer has entries of somebody's own: {str(others[0])[:40]}")
    _check_pages(memoryview(content), columns, end)


def _check_pages(content: memoryview, columns: Sequence["_Chunk"], end: int) -> None:
    """Pages lie one after the other up to the footer, and unpack to little; raises `_Fault`."""
    place = len(_MAGIC)
    unpacked = values = 0
    for chunk in columns:
        if chunk.is_elsewhere or chunk.start != place or not 0 <= chunk.size <= end - place:
            raise _Fault("layout", f"column {chunk.name!r} is not where it should begin")
        place += chunk.size
        for page in _pages(content[chunk.start : place], chunk.name):
            unpacked += page.unpacked_bytes
            values += page.values
            if max(unpacked, values * _VALUE_BYTES) > MOST_UNPACKED_BYTES:
                raise _Fault(
                    "unpacked",
                    f"its pages say that they unpack to more than {MOST_UNPACKED_BYTES:,} bytes",
                )
    if place != end:
        raise _Fault("layout", f"{end - place:,} bytes lie between its rows and its footer")


def _check_schema(found: pa.Schema, *, may_be_older: bool) -> None:
    names, wanted = found.names, SCHEMA.names
    younger = {field.name for field in SCHEMA if field.nullable and field.name not in names}
    older = pa.schema([field for field in SCHEMA if field.name not in younger])
    if found.equals(older if may_be_older else SCHEMA):
        return
    extra = [name for name in names if name not in wanted]
    missing = [name for name in wanted if name not in names]
    if extra:
        raise _Fault("schema", f"columns that rows do not have: {', '.join(extra[:5])[:200]}")
    if missing:
        raise _Fault("schema", f"columns are missing: {', '.join(missing[:5])}")
    for place, (one, other) in enumerate(zip(found, SCHEMA, strict=False)):
        if not one.equals(other):
            raise _Fault("schema", f"column {place} is {str(one)[:100]!r}, not {str(other)!r}")
    raise _Fault("schema", f"it has {len(names)} columns, not {len(wanted)}: some repeat")


def _pages(chunk: memoryview, column: str) -> Iterator[_Page]:
    """What the pages of a column chunk say of themselves; raises `_Fault`."""
    place = count = 0
    while place < len(chunk):
        try:
            page, place = _read_header(chunk, place)
        except _UNREADABLE:
            raise _Fault("parquet", f"column {column!r} has a page that cannot be read") from None
        count += 1
        sizes = (page.packed_bytes, page.unpacked_bytes, page.values)
        if min(sizes) < 0 or place + page.packed_bytes > len(chunk) or count > _MOST_PAGES:
            raise _Fault("parquet", f"column {column!r} has a page beyond its end")
        if page.kind not in (_DATA_PAGE, _DICTIONARY_PAGE) or not page.has_checksum:
            raise _Fault("layout", f"column {column!r} has a page of a kind lcbench never writes")
        place += page.packed_bytes
        yield page


def _read_header(data: memoryview, place: int) -> tuple[_Page, int]:
    fields, place = read_struct(data, place)
    kind = fields[1]
    of_kind = fields[5 if kind == _DATA_PAGE else 7] if kind in (0, 2) else {1: 0}
    sizes = (_whole(fields[2]), _whole(fields[3]), _whole(of_kind[1]))
    return _Page(kind, *sizes, has_checksum=4 in fields), place


def _whole(value: Any) -> int:
    """An integer, which a field that was tampered with need not hold."""
    if type(value) is not int:
        raise TypeError(f"an integer, got {type(value)}")
    return value


def _read(content: bytes) -> pa.Table:
    """The rows, batch by batch, for as long as they stay within bounds; raises `_Fault`."""
    source = pa.BufferReader(content)
    batches: list[Any] = []
    unpacked = rows = 0
    names = set(pq.read_schema(pa.BufferReader(content)).names)
    texts = [name for name in _TEXTS if name in names]
    with pq.ParquetFile(source, read_dictionary=texts, pre_buffer=False, **_LIMITS) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            batch.validate(full=True)
            rows += len(batch)
            unpacked += sum(_unpacked_bytes(column) for column in batch.columns)
            if rows > MOST_ROWS or unpacked > MOST_UNPACKED_BYTES:
                raise _Fault("unpacked", f"it unpacks to more than {MOST_UNPACKED_BYTES:,} bytes")
            batches.append(batch)
        promised = file.metadata.num_rows
    if rows != promised:
        raise _Fault("parquet", f"it has {rows:,} rows and says that it has {promised:,}")
    table = pa.Table.from_batches(batches)
    if any(not f.nullable and table[f.name].null_count for f in SCHEMA):
        raise _Fault("schema", "columns that every row must have are null")
    _check_calendar(table["started_at"])
    return pa.Table.from_arrays([_decoded(table, field) for field in SCHEMA], schema=SCHEMA)


def _check_calendar(times: Any) -> None:
    """Times must be such as Python can tell; raises `_Fault`."""
    span: dict[str, int] = pc.min_max(times.cast("int64")).as_py()  # pyright: ignore[reportAttributeAccessIssue]
    if span["min"] < 0 or span["max"] > _LAST_TIME:
        raise _Fault("range", "started_at holds a time that is in no calendar")


def _unpacked_bytes(column: Any) -> float:
    """Bytes a column takes once its strings stand where they belong."""
    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    lengths = pc.binary_length(column.dictionary).take(column.indices)  # pyright: ignore[reportAttributeAccessIssue]
    return math.fsum([pc.sum(lengths).as_py() or 0, 4 * len(column)])  # pyright: ignore[reportAttributeAccessIssue]


def _decoded(table: pa.Table, field: pa.Field) -> Any:
    """A column with its strings where they belong; null where the file is older than it."""
    if field.name not in table.schema.names:
        return pa.nulls(len(table), field.type)
    column = table[field.name]
    return column.cast(field.type) if pa.types.is_dictionary(column.type) else column
