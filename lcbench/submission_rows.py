"""The rules that each row of a submission must keep by itself: words, numbers, what is null."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from lcbench.store import COLUMN_GROUPS, CURVE, KINDS, SCHEMA_VERSION, STAGES, STATUSES
from lcbench.submission_rules import Findings
from lcbench.task import Metric

Rows = list[dict[str, Any]]

EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER = timedelta(minutes=5)
MOST_BYTES_OF_ANYTHING = 2**50
LONGEST_S = 7 * 86_400

CHOICES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "status": STATUSES,
    "stage": STAGES,
    "dtype": ("float32", "bfloat16"),
    "device_kind": ("cpu", "cuda", "mps"),
    "metric": get_args(Metric),
    "memory_source": ("cuda_allocator", "cpu_profiler", "none"),
    "omp_wait_policy": ("PASSIVE", "ACTIVE", "passive", "active"),
}

_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
_VERSION = r"\d[\w.+-]{0,59}"
FORMS: dict[str, str] = {
    **dict.fromkeys(("suite", "task", "method"), _NAME),
    **dict.fromkeys(("method_hash", "task_hash", "harness_hash"), r"[0-9a-f]{16}"),
    **dict.fromkeys(("lcbench_version", "python", "torch", "cuda"), _VERSION),
    "run_id": r"\d{8}T\d{6}-[0-9a-f]{6}",
    "cell_id": r"[0-9a-f]{24}",
    "env_id": r"[0-9a-f]{12}",
    "data_hash": r"[0-9a-f]{12,64}",
    "commit": r"[0-9a-f]{40}",
    "exit_signal": r"[A-Z0-9+ -]{1,20}",
    "submitter": r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}",
}
"""What strings of a form are, whole. `submitter` is an account's name on GitHub."""
_LENGTHS = {"config": 2_000, "task_config": 2_000, "recipe": 4_000, "error": 500, "warning": 1_000}
_LENGTH = 200
_WHERE_MARKUP_STARTS = re.compile(r"<(?=[A-Za-z/!?])|&#|javascript:", re.IGNORECASE)
# How Python writes what has no name of its own: such text stands in honest errors.
_PYTHON_NAMES = re.compile(
    r"<(class '[\w.]+'|lambda>|locals>|string>|stdin>|unknown>|module>"
    r"|(built-in )?(bound )?(function|method) [\w.<> ]+?>|[\w.]+ object( at 0x[0-9a-f]+)?>)"
)
_PLACES = re.compile(r"(?<![\w.])(?:[A-Za-z]:\\|~\w*/|/)[\w.-]+(?:[\\/][\w.-]+)+|\w@\w+\.\w|://")
"""A path of two folders or more, an address of a person or a page."""

_TINY = 1e-12
_RANGES: dict[str, tuple[float, float]] = {
    "schema_version": (SCHEMA_VERSION, SCHEMA_VERSION),
    **dict.fromkeys(("suite_version", "task_version"), (1, 10**6)),
    **dict.fromkeys(("train_context", "context", "batch", "train_steps"), (1, 2**31)),
    "curve_steps": (1, 2**31),
    **dict.fromkeys(("num_examples", "train_tokens"), (1, 2**50)),
    "num_params": (0, 2**50),
    "seed": (0, 2**31),
    **dict.fromkeys(("wall_s", "train_s", "curve_s"), (0, LONGEST_S)),
    **dict.fromkeys(("score", "floor", "ceiling", "score_se", "loss_nats"), (0, 10**4)),
    **dict.fromkeys(("score_by_example", "score_by_position"), (0, 10**4)),
    "curve_loss_nats": (0, 10**4),
    "generated_exact_match": (0, 1),
    "generated_chrf": (0, 100),
    "num_generated": (1, 10**6),
    "score_by_distance": (0, 1),
    "count_by_distance": (0, 2**40),
    "learning_rate": (_TINY, 10**3),
    "tokens_per_s": (_TINY, 10**13),
    **dict.fromkeys(("step_ms", "vanilla_step_ms"), (1e-6, LONGEST_S * 1e3)),
    **dict.fromkeys(("step_ms_iqr", "vanilla_step_ms_iqr"), (0, LONGEST_S * 1e3)),
    "timings_ns": (1, LONGEST_S * 10**9),
    "vs_vanilla": (1e-9, 10**9),
    "flops": (0, 10**21),
    "load_average": (0, 10**5),
    "threads": (1, 10**4),
    **dict.fromkeys(("matmul_flops_per_s", "copy_bytes_per_s"), (1, 10**18)),
    **dict.fromkeys(("device_bytes", "ram_bytes"), (2**20, MOST_BYTES_OF_ANYTHING)),
}
"""Least and most of each number; bytes not named here lie between 0 and a million gibibytes."""
LIST_LENGTHS = {
    "score_by_distance": (0, 40), "count_by_distance": (0, 40), "score_by_position": (1, 40),
    "score_by_example": (1, 10**6), "timings_ns": (4, 200),
    **dict.fromkeys(CURVE, (1, 32)),
}  # fmt: skip

_ALWAYS = (
    *("task_config", "recipe", "dtype", "deterministic", "seed", "wall_s", "method_hash"),
    *("harness_hash", "lcbench_version", "env_id", "device", "device_bytes", "cpu", "threads"),
    *("ram_bytes", "os", "python", "torch"),
)
IDENTITY = tuple(name for name in _ALWAYS if name not in ("task_config", "wall_s"))
"""What a row of any kind must have to be held to a plan, beside what the schema asks."""
_OF_A_TASK = ("task", "task_version", "task_config", "task_hash", "train_context")
_OF_FAILURES = ("error", "stage", "exit_signal", "asked_bytes")
_MEASURED = frozenset(
    name for group in ("quality", "speed", "memory") for name in COLUMN_GROUPS[group]
) - {"asked_bytes", "warning"}
_OK_QUALITY = (
    *("batch", "metric", "score", "floor", "ceiling", "score_se", "num_examples"),
    *("score_by_distance", "count_by_distance", "loss_nats", "learning_rate", "train_steps"),
    *("train_tokens", "train_s", "score_by_example", "score_by_position", "num_params"),
)
_OK_COST = (
    *("batch", "tokens_per_s", "step_ms", "step_ms_iqr", "timings_ns"),
    *("num_params", "memory_source"),
)
_BESIDE = ("vs_vanilla", "vanilla_step_ms", "vanilla_step_ms_iqr")


def check_rows(rows: Rows, findings: Findings, now: datetime) -> None:
    """Hold each row by itself to the rules."""
    for number, row in enumerate(rows):
        for column, value in row.items():
            if value is not None:
                _check_value(column, value, number, findings)
        _check_nulls(row, number, findings)
        _check_times(row, number, findings, now)


def read_json(text: Any) -> dict[str, Any] | None:
    """A canonical JSON object, or None for text that is none."""
    try:
        found = json.loads(text, parse_constant=_refuse)
        again = json.dumps(found, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) and again == text else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _check_value(column: str, value: Any, number: int, findings: Findings) -> None:
    if isinstance(value, str):
        _check_text(column, value, number, findings)
    elif isinstance(value, list):
        _check_list(column, value, number, findings)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(column, value, number, findings)


def _check_text(column: str, text: str, number: int, findings: Findings) -> None:
    shown = repr(text[:80])
    if (choices := CHOICES.get(column)) and text not in choices:
        message = f"{column} is one of {', '.join(choices)}, got {shown}"
        findings.add("enumeration", message, number, about=column)
    longest = _LENGTHS.get(column, _LENGTH)
    if not 1 <= len(text) <= longest:
        message = f"{column} has {len(text):,} characters, not 1 to {longest:,}"
        findings.add("text", message, number, about=f"{column} length")
        return
    if not text.isprintable():
        message = f"{column} holds what cannot be printed: {shown}"
        findings.add("text", message, number, about=f"{column} printable")
    if column in FORMS and not re.fullmatch(FORMS[column], text, re.ASCII):
        message = f"{column} must match {FORMS[column]}, got {shown}"
        findings.add("text", message, number, about=f"{column} form")
    if column in _LENGTHS and column not in ("error", "warning"):
        if read_json(text) is None:
            message = f"{column} must be a JSON object, keys sorted, without spaces, got {shown}"
            rule = "config" if column == "config" else "text"
            findings.add(rule, message, number, about=f"{column} JSON")
    elif _WHERE_MARKUP_STARTS.search(_PYTHON_NAMES.sub("", text)):
        findings.add("text", f"{column} holds markup: {shown}", number, about=f"{column} markup")
    elif column in ("error", "warning") and _PLACES.search(text):
        message = f"{column} names a folder or an address: {shown}"
        findings.add("text", message, number, about=f"{column} place")


def _check_list(column: str, values: list[Any], number: int, findings: Findings) -> None:
    least, most = LIST_LENGTHS.get(column, (0, 10**6))
    if not least <= len(values) <= most:
        message = f"{column} has {len(values):,} entries, not {least:,} to {most:,}"
        findings.add("range", message, number, about=f"{column} length")
    if column not in ("score_by_distance", "score_by_position") and None in values:
        findings.add("nulls", f"{column} has an entry that is null", number, about=column)
    for value in values:
        if value is not None:
            _check_number(column, value, number, findings)


def _check_number(column: str, value: float, number: int, findings: Findings) -> None:
    if not math.isfinite(value):
        findings.add("finite", f"{column} is {value}", number, about=column)
        return
    everything = (0, MOST_BYTES_OF_ANYTHING)
    least, most = _RANGES.get(column, everything)
    if not least <= value <= most:
        message = f"{column} is {value:g}, not between {least:g} and {most:g}"
        findings.add("range", message, number, about=column)


def _check_nulls(row: Mapping[str, Any], number: int, findings: Findings) -> None:
    is_quality, is_ok = row["kind"] == "quality", row["status"] == "ok"
    needed = [name for name in _ALWAYS if is_quality or name != "task_config"]
    ruled_out: list[str] = []
    if is_quality:
        needed += _OF_A_TASK
    else:
        ruled_out += (*_OF_A_TASK, "data_hash")
    if is_ok:
        measured = set(_OK_QUALITY if is_quality else _OK_COST)
        needed += sorted(measured)
        other = COLUMN_GROUPS["quality"] if not is_quality else COLUMN_GROUPS["speed"]
        ruled_out += [*_OF_FAILURES, *(n for n in other if n in _MEASURED and n not in measured)]
        if is_quality:
            memory = COLUMN_GROUPS["memory"]
            ruled_out += [name for name in memory if name in _MEASURED and name != "num_params"]
            has_bits = row["metric"] != "bits_per_byte"
            (needed if has_bits else ruled_out).append("correct_bits")
    else:
        needed.append("error")
        ruled_out += sorted(_MEASURED)
    _tell_nulls(row, number, findings, needed, ruled_out)
    if is_ok and not is_quality:
        _check_pairs(row, number, findings)


def _tell_nulls(
    row: Mapping[str, Any],
    number: int,
    findings: Findings,
    needed: Iterable[str],
    ruled_out: Iterable[str],
) -> None:
    what = f"a {row['kind']} row that is {row['status']!r}"
    for name in needed:
        if row[name] is None:
            findings.add("nulls", f"{name} is null; {what} must have it", number, about=name)
    for name in dict.fromkeys(ruled_out):
        if row[name] is not None:
            findings.add("nulls", f"{name} is set; {what} cannot have it", number, about=name)


def _check_pairs(row: Mapping[str, Any], number: int, findings: Findings) -> None:
    """What is measured beside the anchor is there together, or a warning says why not."""
    given = [row[name] is not None for name in _BESIDE]
    if any(given) and not all(given):
        message = f"{', '.join(_BESIDE)} are there together or not at all"
        findings.add("nulls", message, number)
    if not any(given) and not (row["warning"] or "").startswith("no ratio"):
        message = "vs_vanilla is null and no warning says why the anchor failed"
        findings.add("nulls", message, number)
    if (row["peak_bytes"] is None) is not (row["memory_source"] == "none"):
        message = "peak_bytes is null where memory_source is 'none', and nowhere else"
        findings.add("nulls", message, number)


def _check_times(row: Mapping[str, Any], number: int, findings: Findings, now: datetime) -> None:
    started = row["started_at"]
    if started < EARLIEST:
        findings.add("future", f"started_at is {started}, before there was lcbench", number,
                     about="started_at")  # fmt: skip
        return
    wall = row["wall_s"] or 0.0
    ended = started + timedelta(seconds=wall if 0 <= wall <= LONGEST_S else 0)
    if ended > now + CLOCKS_DIFFER:
        message = f"it ended at {ended:%Y-%m-%d %H:%M:%S} UTC, which is not yet"
        findings.add("future", message, number, about="ended")
