"""Files of results that were tampered with: nobody who reads them crashes, hangs or takes them.

`LCBENCH_FUZZ_CASES=5000` tries as many of each kind, at random; otherwise it is a few hundred, the
same ones each time.
"""

import datetime as dt
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcbench import store
from lcbench.app import data, launch
from lcbench.submission import Finding, Tree, check_content, read_tree

CASES = int(os.environ.get("LCBENCH_FUZZ_CASES", "0"))
NOW = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)


class Honest(NamedTuple):
    content: bytes
    name: str
    table: Any
    tree: Tree

    def __repr__(self) -> str:
        return "an honest file"


@pytest.fixture(scope="module")
def honest(honest_rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Honest:
    table = pa.Table.from_pylist(honest_rows, schema=store.SCHEMA)
    folder = tmp_path_factory.mktemp("sealed")
    day = max(row["started_at"] for row in honest_rows).date()
    path = store.seal(table, folder / "smoke" / "sliding-window", day)
    assert isinstance(path, Path)
    name = path.relative_to(folder).as_posix()
    return Honest(path.read_bytes(), name, store.read_table([path]).table, read_tree())


def cases(few: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=CASES or few,
        derandomize=not CASES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A change to a file's bytes: flips, a cut, a hole, a repetition; often in the footer."""
    kind = draw(st.sampled_from(["flip", "flip", "footer", "footer", "cut", "hole", "repeat"]))
    places = draw(st.lists(st.floats(0, 1), min_size=1, max_size=4))
    masks = draw(st.lists(st.integers(1, 255), min_size=4, max_size=4))

    def change(content: bytes) -> bytes:
        # The rows come first and the footer last, which is a fifth of a small file.
        start = len(content) * 4 // 5 if kind == "footer" else 0
        at = [start + round(place * (len(content) - 1 - start)) for place in places]
        if kind == "cut":
            return content[: at[0]]
        if kind == "hole":
            return content[: at[0]] + content[at[0] + masks[0] :]
        if kind == "repeat":
            return content[: at[0]] + content[max(0, at[0] - masks[0]) :]
        found = bytearray(content)
        for place, mask in zip(at, masks, strict=False):
            found[place] ^= mask
        return bytes(found)

    return change


def any_value(kind: Any) -> st.SearchStrategy[Any]:
    """A value that a column of this type can hold, however little sense it makes."""
    if pa.types.is_list(kind):
        return st.lists(st.none() | any_value(kind.value_type), max_size=8)
    odd_words = st.sampled_from(["", "NaN", "../../x", "<b>", "{}", "[" * 400, "1e999", "\0", "é"])
    strategies: dict[Any, st.SearchStrategy[Any]] = {
        pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 4),
        pa.float64(): st.floats() | st.floats(-2, 2),
        pa.string(): odd_words | st.text(max_size=40),
        pa.bool_(): st.booleans(),
        pa.binary(): st.binary(max_size=40),
    }
    # Any 64 bits can stand for a time, and most are in no calendar.
    return strategies.get(kind, st.integers(-(2**63), 2**63 - 1))


@st.composite
def edit(draw: st.DrawFn) -> tuple[str, float, Any]:
    """A column, a row as a share of all, and a value to put there."""
    field = draw(st.sampled_from(list(store.SCHEMA)))
    value = draw(any_value(field.type))
    return field.name, draw(st.floats(0, 1)), value if field.nullable else value or 1


def edited(table: Any, name: str, share: float, value: Any) -> Any:
    kind = store.SCHEMA.field(name).type
    is_time = pa.types.is_timestamp(kind)
    values = (table[name].cast(pa.int64()) if is_time else table[name]).to_pylist()
    values[round(share * (len(values) - 1))] = value
    if pa.types.is_string(kind):
        values = [None if v is None else str(v) for v in values]
    column = pa.array(values, pa.int64() if is_time else kind)
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), column.cast(kind))


def with_edits(table: Any, edits: list[tuple[str, float, Any]]) -> Any:
    for name, share, value in edits:
        table = edited(table, name, share, value)
    return table


def written(table: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def judge(content: bytes, honest: Honest) -> list[Finding]:
    """The validator's findings, which must be a verdict and not an accident."""
    findings = check_content(content, honest.name, honest.tree, now=NOW)
    assert "stopped" not in {finding.rule for finding in findings}, findings
    assert all(finding.message.isprintable() for finding in findings), findings
    return findings


def read_by_store(content: bytes, folder: Path) -> Path:
    """The store reads it, or names it among what it could not read."""
    path = folder / f"{random.getrandbits(64):x}.parquet"
    path.write_bytes(content)
    read = store.read_rows([path])
    assert len(read.frame) or read.problems or not content
    return path


def read_by_app(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does the app."""
    monkeypatch.setenv(launch.RESULTS, str(path))
    results = data.load_results()
    assert len(results.rows) or results.problems


@cases(400)
@given(change=damage())
def test_no_damaged_file_is_taken(change: Callable[[bytes], bytes], honest: Honest) -> None:
    content = change(honest.content)
    if not judge(content, honest):
        found = pq.read_table(pa.BufferReader(content)).select(store.SCHEMA.names)
        assert sorted(store.canonical_rows(found)) == sorted(store.canonical_rows(honest.table))


@cases(100)
@given(edits=st.lists(edit(), min_size=1, max_size=3))
def test_no_edited_row_is_taken(edits: list[tuple[str, float, Any]], honest: Honest) -> None:
    table = with_edits(honest.table, edits)
    findings = judge(written(table), honest)
    assert findings or table.equals(honest.table)


@cases(40)
@given(edits=st.lists(edit(), min_size=1, max_size=3))
def test_edited_rows_under_their_own_name_get_a_verdict(
    edits: list[tuple[str, float, Any]], honest: Honest
) -> None:
    table = with_edits(honest.table, edits)
    content = written(table)
    for finding in check_content(content, honest.name, honest.tree, now=NOW):
        if finding.rule == "digest":
            said = finding.message.split()[5].rstrip(",")
            name = f"{honest.name[: -len('000000000000.parquet')]}{said}.parquet"
            judge(content, honest._replace(name=name))


@cases(200)
@given(change=damage())
def test_the_store_reads_damaged_files(
    change: Callable[[bytes], bytes], honest: Honest, tmp_path: Path
) -> None:
    read_by_store(change(honest.content), tmp_path).unlink()


@cases(100)
@given(edits=st.lists(edit(), min_size=1, max_size=3))
def test_the_store_reads_edited_rows(
    edits: list[tuple[str, float, Any]], honest: Honest, tmp_path: Path
) -> None:
    read_by_store(written(with_edits(honest.table, edits)), tmp_path).unlink()


@cases(4)
@given(change=damage())
def test_the_app_reads_damaged_files(
    change: Callable[[bytes], bytes],
    honest: Honest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_by_app(read_by_store(change(honest.content), tmp_path), monkeypatch)


@cases(6)
@given(edits=st.lists(edit(), min_size=1, max_size=3))
def test_the_app_reads_edited_rows(
    edits: list[tuple[str, float, Any]],
    honest: Honest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = read_by_store(written(with_edits(honest.table, edits)), tmp_path)
    read_by_app(path, monkeypatch)
