"""The row schema, and Parquet files of rows: validate, write, read, seal.

A folder of results holds files sealed by `seal`, named by their content, and the journal of a run
under way. Readers take a folder as it is: what cannot be read is told beside what can. A file that
lacks a column is older than it, and reads as null there.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lcbench.config import did_you_mean
from lcbench.places import Place, RemotePath, write_atomically

SCHEMA_VERSION = 1
"""Goes up with every change after which an older reader would misread a row."""

KINDS = ("quality", "train_step", "prefill", "decode")
STATUSES = ("ok", "oom", "timeout", "crashed", "error", "unsupported", "invalid")
STAGES = ("load", "build", "train", "evaluate", "measure", "weigh")

CELL_KEY = ("cell_id", "kind", "context")
"""What was measured: of several rows with one cell key, the newest counts."""
ROW_KEY = (*CELL_KEY, "run_id")
"""One measurement: a row that lies in a cell's file and in a sealed one is the same row."""

Row = dict[str, object]
"""One measurement of a cell: column names to Python values; what is absent was not measured."""

_INT, _FLOAT, _TEXT, _BOOL = pa.int64(), pa.float64(), pa.string(), pa.bool_()
_TIME, _BINARY = pa.timestamp("us", tz="UTC"), pa.binary()

CURVE = ("curve_steps", "curve_loss_nats", "curve_s")
"""The columns of a learning curve: lists of equal length, all there or none."""
COLUMN_GROUPS: dict[str, dict[str, Any]] = {
    "identity": {
        "schema_version": _INT,
        "run_id": _TEXT,
        "cell_id": _TEXT,
        "kind": _TEXT,
        "suite": _TEXT,
        "suite_version": _INT,
        "task": _TEXT,
        "task_version": _INT,
        "task_config": _TEXT,
        "method": _TEXT,
        "config": _TEXT,
        "recipe": _TEXT,
        "train_context": _INT,
        "context": _INT,
        "batch": _INT,
        "dtype": _TEXT,
        "deterministic": _BOOL,
        "seed": _INT,
    },
    "outcome": {
        "status": _TEXT,
        "stage": _TEXT,
        "error": _TEXT,
        "exit_signal": _TEXT,
        "wall_s": _FLOAT,
    },
    "quality": {
        "metric": _TEXT,
        "score": _FLOAT,
        "floor": _FLOAT,
        "ceiling": _FLOAT,
        "score_se": _FLOAT,
        "num_examples": _INT,
        "score_by_distance": pa.list_(_FLOAT),
        "count_by_distance": pa.list_(_INT),
        "loss_nats": _FLOAT,
        "learning_rate": _FLOAT,
        "sweep_learning_rates": pa.list_(_FLOAT),
        "sweep_loss_nats": pa.list_(_FLOAT),
        "train_steps": _INT,
        "train_tokens": _INT,
        "train_s": _FLOAT,
        "curve_steps": pa.list_(_INT),
        "curve_loss_nats": pa.list_(_FLOAT),
        "curve_s": pa.list_(_FLOAT),
        "score_by_example": pa.list_(_FLOAT),
        "score_by_position": pa.list_(_FLOAT),
        "correct_bits": _BINARY,
        "generated_exact_match": _FLOAT,
        "generated_chrf": _FLOAT,
        "num_generated": _INT,
    },
    "speed": {
        "tokens_per_s": _FLOAT,
        "step_ms": _FLOAT,
        "step_ms_iqr": _FLOAT,
        "timings_ns": pa.list_(_INT),
        "vanilla_step_ms": _FLOAT,
        "vanilla_step_ms_iqr": _FLOAT,
        "vs_vanilla": _FLOAT,
        "flops": _INT,
        "touched_bytes": _INT,
        "load_average": _FLOAT,
        "throttled": _BOOL,
        "warning": _TEXT,
    },
    "memory": {
        "peak_bytes": _INT,
        "vanilla_peak_bytes": _INT,
        "state_bytes": _INT,
        "asked_bytes": _INT,
        "num_params": _INT,
        "memory_source": _TEXT,
    },
    "provenance": {
        "method_hash": _TEXT,
        "task_hash": _TEXT,
        "data_hash": _TEXT,
        "harness_hash": _TEXT,
        "lcbench_version": _TEXT,
        "commit": _TEXT,
        "dirty": _BOOL,
        "started_at": _TIME,
        "submitter": _TEXT,
    },
    "environment": {
        "env_id": _TEXT,
        "device_kind": _TEXT,
        "device": _TEXT,
        "device_bytes": _INT,
        "cpu": _TEXT,
        "threads": _INT,
        "ram_bytes": _INT,
        "huge_pages": _BOOL,
        "omp_wait_policy": _TEXT,
        "os": _TEXT,
        "python": _TEXT,
        "torch": _TEXT,
        "cuda": _TEXT,
        "matmul_flops_per_s": _FLOAT,
        "copy_bytes_per_s": _FLOAT,
    },
}
"""Every column and its type, by what it tells of.

`asked_bytes` is the allocation at which a cell ran out of memory, where the allocator names it.
Bucket b of `score_by_distance` and `count_by_distance` holds the answers whose evidence lies [2^b,
2^(b+1)) tokens back; a score is null where none fell. `sweep_loss_nats` is the loss on validation
of each of the `sweep_learning_rates`, null where training diverged; both are null where there was
one rate and nothing to choose. `generated_exact_match` (a share), `generated_chrf` (0 to 100) and
`num_generated` are of passages that the model wrote by itself, see `generation.Generation`; null
where the task asks for none, or the method does not stream. `curve_steps`, `curve_loss_nats` and
`curve_s` are the learning curve of the training at `learning_rate`, at most 32 points: steps done
by the end of each span of steps, mean training loss within the span, seconds of training passed by
its end. Every ok row of a cell carries it, as it does `train_s`: whichever contexts were asked for,
one is there. Null in what was measured before curves were kept. `train_tokens` counts contexts as
whole: of a task with jitter, up to an eighth fewer were read. `flops` and `touched_bytes` are of
one call, see `counting.Work`; `matmul_flops_per_s` (in the row's dtype) and `copy_bytes_per_s` are
what `lcbench env --measure` found the machine to reach, null where it was not asked. `load_average`
is that of the minute before timing began, the run's own work included; `throttled` says whether
heat or a container's quota slowed the machine while it was timed, null where nothing tells.
"""

REQUIRED = (
    *("schema_version", *ROW_KEY, "suite", "suite_version", "method", "config"),
    *("status", "started_at", "device_kind"),
)
"""Columns no row may lack."""
REQUIRED_OF_QUALITY = ("task", "task_version", "task_config", "train_context", "seed")
"""Columns no row of kind `quality` may lack: without them it belongs to no cell of a plan."""

SCHEMA: pa.Schema = pa.schema(
    pa.field(name, kind, nullable=name not in REQUIRED)
    for group in COLUMN_GROUPS.values()
    for name, kind in group.items()
)
"""The columns of every file of rows, in order."""

_TYPES: dict[str, Any] = dict(zip(SCHEMA.names, SCHEMA.types, strict=True))
_CHOICES = {"kind": KINDS, "status": STATUSES, "stage": STAGES}
_PYTHON_TYPES: dict[Any, type] = {
    _INT: Integral,
    _FLOAT: Real,
    _TEXT: str,
    _BINARY: bytes,
}


class TableResult(NamedTuple):
    """What a set of files holds."""

    table: pa.Table
    problems: list[tuple[Place, str]]
    """Files that were left out, and why, in one line each."""


class ReadResult(NamedTuple):
    """What a set of files holds, for pandas."""

    frame: pd.DataFrame
    """Integers are `Int64` and truth values `boolean`, so that null stays null."""
    problems: list[tuple[Place, str]]
    """Files that were left out, and why, in one line each."""


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as a table of `SCHEMA`; columns a row lacks become null.

    Raises:
        ValueError: An unknown column, a value of the wrong type or outside its column's choices, a
            required column that is null, or no rows at all.
    """
    listed = [{"schema_version": SCHEMA_VERSION, **row} for row in rows]
    if not listed:
        raise ValueError("no rows to write; a cell that measured nothing is a row with a status")
    for row in listed:
        _validate(row)
    return pa.Table.from_pylist(listed, schema=SCHEMA)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to one Parquet file that is either whole or not there; makes its folder.

    The same rows give the same bytes.

    Raises:
        ValueError: Rows that `to_table` refuses.
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    write_atomically(path, _encode(to_table(rows)))


def seal(rows: pa.Table | Iterable[Row], folder: Place, day: date) -> Place:
    """Write the rows of a finished run to `<folder>/<day>-<digest>.parquet`.

    The digest is that of the rows, in whatever order and by whatever version of Parquet's writer,
    so the same rows sealed twice on a day are one file.

    Raises:
        ValueError: Rows that `to_table` refuses.
        OSError: The folder cannot be written; nothing is left behind.
    """
    table: Any = rows if isinstance(rows, pa.Table) else to_table(rows)
    if table.schema != SCHEMA:
        raise ValueError("a table to seal has the columns of SCHEMA, as read_table gives them")
    order = ("method", "kind", "task", "cell_id", "context", "run_id")
    table = table.sort_by([(name, "ascending") for name in order])
    content = content_digest(table)
    path = folder / f"{day:%Y-%m-%d}-{content}.parquet"
    # A file of this name that does not hold these rows is a damaged copy: writing mends it.
    whole, problems = read_table([path]) if path.is_file() else (None, [])
    if whole is None or problems or content_digest(whole) != content:
        write_atomically(path, _encode(table.combine_chunks()))
    return path


def content_digest(table: pa.Table) -> str:
    """Hash of a table's rows, 12 hexadecimal digits: of what they say, not of how they are written.

    A column that is new and null changes nothing, nor does the order of the rows.
    """
    return hashlib.sha256("\n".join(sorted(canonical_rows(table))).encode()).hexdigest()[:12]


def canonical_rows(table: pa.Table) -> Iterator[str]:
    """Each row as JSON with sorted keys and without nulls: equal rows, equal text."""
    for row in table.to_pylist():
        present = {name: value for name, value in row.items() if value is not None}
        yield json.dumps(present, sort_keys=True, separators=(",", ":"), default=_canonical)


def read_table(
    paths: Iterable[Place],
    columns: Sequence[str] | None = None,
    keep: Callable[[Place], bool] | None = None,
) -> TableResult:
    """Read every row under some files and folders, each row once.

    A run may seal its journal while it is read: files that went are looked for again.

    Args:
        paths: Files, and folders, searched to any depth; a folder that is not there is empty.
        columns: The columns wanted, in the schema's order whatever theirs; None for all.
        keep: Which of the files found to read; None for all.

    Raises:
        ValueError: A column that is not in the schema.
    """
    _check_known(columns or ())
    wanted = [name for name in SCHEMA.names if columns is None or name in columns]
    needed = [name for name in SCHEMA.names if name in {*wanted, *ROW_KEY, "schema_version"}]
    schema = pa.schema([SCHEMA.field(name) for name in needed])
    paths = list(paths)
    for last in (False, False, True):
        files = _parquet_files(paths)
        tables, problems, vanished = _read_files(filter(keep, files) if keep else files, schema)
        if last or not vanished:
            break
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    if tables:
        repeated = table.select(ROW_KEY).to_pandas().duplicated()
        table = table.filter(pa.array(~repeated)) if repeated.any() else table
    return TableResult(table.select(wanted), problems)


def read_rows(
    paths: Iterable[Place],
    columns: Sequence[str] | None = None,
    keep: Callable[[Place], bool] | None = None,
) -> ReadResult:
    """Read every row under some files and folders, each row once, as a frame.

    Takes and raises what `read_table` does; reading fewer columns takes less time and memory.
    """
    table, problems = read_table(paths, columns, keep)
    nullable: dict[Any, Any] = {_INT: pd.Int64Dtype(), _BOOL: pd.BooleanDtype()}
    return ReadResult(table.to_pandas(types_mapper=nullable.get), problems)


def latest(frame: pd.DataFrame, by: Sequence[str] = CELL_KEY) -> pd.DataFrame:
    """Of the rows of each key the one newest by `started_at` (of equals the first), order kept."""
    rows = frame[[*by, "started_at"]].reset_index(drop=True)
    newest = rows.groupby(list(by), sort=False, dropna=False)["started_at"].idxmax()
    return frame.iloc[np.sort(newest.to_numpy())]


def _validate(row: Row) -> None:
    _check_known(row)
    if row["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {SCHEMA_VERSION}, got {row['schema_version']!r}")
    required = REQUIRED + (REQUIRED_OF_QUALITY if row.get("kind") == "quality" else ())
    for name in required:
        if row.get(name) is None:
            raise ValueError(f"column {name!r} is null; a {row.get('kind')} row must have it")
    for name, value in row.items():
        if value is None:
            continue
        if not _fits(value, _TYPES[name]):
            raise ValueError(f"column {name!r} takes {_TYPES[name]}, got {repr(value)[:200]}")
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(
                f"column {name!r} is one of {', '.join(_CHOICES[name])}, got {value!r}"
            )


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a column's type; Arrow alone would take 1.5 for an integer."""
    if pa.types.is_list(kind):
        is_list = not isinstance(value, str | bytes) and isinstance(value, Iterable)
        return is_list and all(item is None or _fits(item, kind.value_type) for item in value)
    if kind == _BOOL or isinstance(value, bool):
        return kind == _BOOL and isinstance(value, bool)
    if kind == _INT:
        return isinstance(value, Integral) and -(2**63) <= int(value) < 2**63
    if kind == _TIME:
        return isinstance(value, datetime) and value.tzinfo is not None
    return isinstance(value, _PYTHON_TYPES[kind])


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def _canonical(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else value.isoformat()  # pyright: ignore[reportAttributeAccessIssue]


def _check_known(columns: Iterable[str]) -> None:
    unknown = [name for name in columns if name not in _TYPES]
    if unknown:
        raise ValueError(f"unknown column {unknown[0]!r}; {did_you_mean(unknown[0], _TYPES)}")


def _parquet_files(paths: Iterable[Place]) -> Iterator[Place]:
    for path in paths:
        if path.is_dir():
            found = path.rglob("*.parquet")
            yield from sorted(file for file in found if not file.name.startswith("."))  # pyright: ignore[reportArgumentType]
        elif path.exists() or path.suffix == ".parquet":
            yield path


def _read_files(
    files: Iterable[Place], schema: pa.Schema
) -> tuple[list[pa.Table], list[tuple[Place, str]], bool]:
    """The tables of files, those that cannot be read and why, and whether any had gone."""
    tables: list[pa.Table] = []
    problems: list[tuple[Place, str]] = []
    vanished = False
    for file in files:
        try:
            tables.append(_read_file(file, schema))
        except (OSError, ValueError, pa.ArrowException) as error:
            problems.append((file, _reason(error)))
            vanished |= isinstance(error, FileNotFoundError)
    return tables, problems, vanished


def _read_file(path: Place, schema: pa.Schema) -> pa.Table:
    """Read the columns of `schema` from one file of rows; null where it is older than a column."""
    source: Any = path.open_input() if isinstance(path, RemotePath) else path
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        found = file.schema_arrow
        types = dict(zip(found.names, found.types, strict=True))
        if types.get("schema_version") != _INT:
            raise ValueError("not a file of lcbench rows: it has no schema_version")
        if len(types) < len(found):
            raise ValueError("not a file of lcbench rows: its column names repeat")
        fault = _fault(types)
        readable = [name for name in schema.names if name in types]
        threads = file.metadata.num_rows > 10_000
        table = file.read(["schema_version"] if fault else readable, use_threads=threads)
    versions = table["schema_version"].unique().to_pylist()
    if versions not in ([SCHEMA_VERSION], []):
        raise ValueError(f"schema_version {versions}; this lcbench reads {SCHEMA_VERSION}")
    if fault:
        raise ValueError(fault)
    for field in schema:
        if field.name not in types:
            table = table.append_column(field, pa.nulls(len(table), field.type))
        elif not field.nullable and table[field.name].null_count:
            raise ValueError(f"column {field.name!r} has nulls")
    return table.select(schema.names).cast(schema)


def _fault(types: dict[str, Any]) -> str | None:
    """Why a file with these columns cannot be read, if so."""
    unknown = [name for name in types if name not in _TYPES]
    if unknown:
        return (
            f"it has columns this lcbench does not know: {', '.join(unknown[:5])}; update lcbench"
        )
    missing = [name for name in REQUIRED if name not in types]
    if missing:
        return f"it lacks columns every row must have: {', '.join(missing[:5])}"
    differing = [name for name, kind in types.items() if kind != _TYPES[name]]
    if differing:
        return f"its columns differ from the schema's in type: {', '.join(differing[:5])}"
    return None


def _reason(error: Exception) -> str:
    """An error in one line; Arrow's own words for a system error would repeat the path."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error) or type(error).__name__).splitlines()[0][:200]
