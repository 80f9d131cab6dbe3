"""Bad submissions, each with the rule that catches it; and an honest one, which none does."""

import copy
import dataclasses
import io
import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcbench import store
from lcbench.submission import RULES, Finding, Tree, check_content, check_paths, read_tree
from lcbench.submission_file import NAME
from lcbench.suite import Cell

Row = dict[str, Any]
Rows = list[Row]
SLIDING = "sliding-window"
IDENTITY = (
    "kind", "suite", "suite_version", "task", "task_version", "task_hash", "task_config",
    "data_hash", "method", "method_hash", "config", "recipe", "seed", "dtype", "device_kind",
    "harness_hash", "deterministic",
)  # fmt: skip


@pytest.fixture(scope="session")
def tree() -> Tree:
    return read_tree()


@pytest.fixture
def rows(honest_rows: Rows) -> Rows:
    return copy.deepcopy(honest_rows)


def rules_of(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


def with_ids(rows: Rows) -> Rows:
    """Rows under the ids that what they say comes to, as a careful forger would write them."""
    for row in rows:
        fields = {name: row[name] for name in IDENTITY}
        row["cell_id"] = Cell(**fields, timeout_s=0, threads=0).cell_id
    return rows


def of(rows: Rows, kind: str, method: str = SLIDING, task: str | None = None) -> Rows:
    return [
        row
        for row in rows
        if (row["kind"], row["method"]) == (kind, method) and task in (None, row["task"])
    ]


def put(column: str, value: Any, kind: str = "quality", **where: Any) -> Callable[[Rows], Rows]:
    """Every such row of the method says `value` in a column."""

    def change(rows: Rows) -> Rows:
        for row in of(rows, kind, **where):
            row[column] = value(row[column]) if callable(value) else value
        return rows

    return change


def everywhere(column: str, value: Any) -> Callable[[Rows], Rows]:
    """Every row says `value` in a column, and its id is right for that."""

    def change(rows: Rows) -> Rows:
        return with_ids([row | {column: value} for row in rows])

    return change


def test_an_honest_submission_breaks_no_rule(rows: Rows, seal: Any, tree: Tree) -> None:
    assert check_content(*seal(rows), tree) == []


def test_so_does_one_with_failures_that_are_told(rows: Rows, seal: Any, tree: Tree) -> None:
    measured = [
        name for group in ("quality", "speed", "memory") for name in store.COLUMN_GROUPS[group]
    ]
    for row in of(rows, "decode") + of(rows, "quality", task="mqar"):
        row.update(dict.fromkeys(measured))
        row.update(
            status="crashed", stage="train", exit_signal="SIGSEGV", error="killed by SIGSEGV"
        )
    assert check_content(*seal(rows), tree) == []


def test_so_does_one_with_more_seeds_than_the_suite_has(rows: Rows, seal: Any, tree: Tree) -> None:
    more = [row | {"seed": 1} for row in copy.deepcopy(rows) if row["kind"] == "quality"]
    assert check_content(*seal(rows + with_ids(more)), tree) == []


def test_results_of_a_draft_are_refused(
    rows: Rows, seal: Any, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tree.suite("smoke")
    assert facts
    draft = facts._replace(suite=dataclasses.replace(facts.suite, version=0))
    monkeypatch.setattr(Tree, "suite", lambda *_: draft)
    findings = check_content(*seal(everywhere("suite_version", 0)(rows)), tree)
    assert any(f.rule == "suite" and "is a draft" in f.message for f in findings)


# What a forger might do to rows, with the right digest and ids: one change each.


def swap_methods(rows: Rows) -> Rows:
    other = {SLIDING: "vanilla", "vanilla": SLIDING}
    for row in rows:
        row["method"] = other[row["method"]]
    return with_ids(rows)


def drop_a_failure(rows: Rows) -> Rows:
    return [row for row in rows if not (row["kind"] == "decode" and row["method"] == SLIDING)]


def drop_a_context(rows: Rows) -> Rows:
    worst = of(rows, "quality", task="mqar")[-1]
    return [row for row in rows if row is not worst]


def double_a_row(rows: Rows) -> Rows:
    return [*rows, dict(of(rows, "quality")[0])]


def measure_twice(rows: Rows) -> Rows:
    again = [row | {"run_id": "20260101T000000-abcdef"} for row in of(rows, "prefill")]
    return rows + again


def take_the_best_seed(rows: Rows) -> Rows:
    for row in of(rows, "quality") + of(rows, "quality", "vanilla"):
        row["seed"] = 7
    return with_ids(rows)


def add_a_lucky_seed(rows: Rows) -> Rows:
    lucky = [row | {"seed": 5} for row in rows if row["kind"] == "quality"]
    return rows + with_ids(copy.deepcopy(lucky))


def more_seeds_of_one_task(rows: Rows) -> Rows:
    more = [row | {"seed": 1} for row in rows if row["task"] == "mqar"]
    return rows + with_ids(copy.deepcopy(more))


def more_seeds_than_the_anchor(rows: Rows) -> Rows:
    more = [row | {"seed": 1} for row in of(rows, "quality")]
    return rows + with_ids(copy.deepcopy(more))


def later(rows: Rows) -> Rows:
    return [row | {"started_at": datetime.now(UTC) + timedelta(days=2)} for row in rows]


def train_longer(rows: Rows) -> Rows:
    for row in of(rows, "quality"):
        recipe = json.loads(row["recipe"]) | {"steps": 1000}
        row["recipe"] = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
        row["train_steps"] = 1000
        row["train_tokens"] = 1000 * recipe["batch"] * recipe["train_context"]
    return with_ids(rows)


def fewer_examples(rows: Rows) -> Rows:
    for row in of(rows, "quality", task="code-lm"):
        row["score_by_example"] = row["score_by_example"][:4]
        row["num_examples"] = 4
    return rows


def edit_score_and_examples(rows: Rows) -> Rows:
    for row in of(rows, "quality", task="mqar"):
        row["score"], row["score_se"] = 1.0, 0.0
        row["score_by_example"] = [1.0] * row["num_examples"]
    return rows


def edit_one_example(rows: Rows) -> Rows:
    row = of(rows, "quality", task="mqar")[0]
    row["score_by_example"][0] = 1.0 - row["score_by_example"][0] or 0.5
    return rows


def flip_bits(rows: Rows) -> Rows:
    for row in of(rows, "quality", task="mqar"):
        row["correct_bits"] = bytes(byte ^ 255 for byte in row["correct_bits"])
    return rows


def score_lies_far_back(rows: Rows) -> Rows:
    for row in of(rows, "quality", task="mqar"):
        row["score_by_distance"] = [
            None if score is None else 1.0 for score in row["score_by_distance"]
        ]
    return rows


def edit_bits_per_byte(rows: Rows) -> Rows:
    for row in of(rows, "quality", task="code-lm"):
        row["score"] = min(row["score_by_example"])
    return rows


def as_failure(rows: Rows) -> Rows:
    for row in of(rows, "decode"):
        row.update(status="oom", error="out of memory")
    return rows


def faster(rows: Rows, times: float, *, beside: bool) -> Rows:
    """A consistent forgery of speed: timings, summaries, rates and ratios together."""
    for row in of(rows, "train_step"):
        row["timings_ns"] = [max(1, round(ns / times)) for ns in row["timings_ns"]]
        ordered = sorted(row["timings_ns"])
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2e6
        low, high = (_quantile(ordered, share) for share in (0.25, 0.75))
        row["step_ms"], row["step_ms_iqr"] = middle, (high - low) / 1e6
        row["tokens_per_s"] = row["batch"] * row["context"] / middle * 1e3
        if beside:
            row["vanilla_step_ms"] *= times
        row["vs_vanilla"] = row["vanilla_step_ms"] / middle
    return rows


def _quantile(ordered: list[int], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def slow_anchor(rows: Rows) -> Rows:
    for row in of(rows, "decode"):
        row["vanilla_step_ms"] *= 400
        row["vs_vanilla"] *= 400
        row["wall_s"] += row["vanilla_step_ms"]
    return rows


def without_anchor(rows: Rows) -> Rows:
    return [row for row in rows if row["method"] == SLIDING]


def anchor_of_another_machine(rows: Rows) -> Rows:
    anchors = [row for row in rows if row["method"] == "vanilla"]
    for row in anchors:
        row.update(env_id="0" * 12, cpu="a slower one", device="a slower one")
    return rows


def another_corpus(rows: Rows) -> Rows:
    for row in of(rows, "quality", task="code-lm"):
        row["data_hash"] = "0" * 64
    return with_ids(rows)


def two_machines_under_one_name(rows: Rows) -> Rows:
    of(rows, "prefill")[0]["threads"] += 30
    return rows


def half_of_a_cell_elsewhere(rows: Rows) -> Rows:
    of(rows, "quality", task="mqar")[0]["wall_s"] += 1.0
    return rows


def one_value_null(column: str, kind: str) -> Callable[[Rows], Rows]:
    return put(column, None, kind)


def wrote(exact: float | None, count: int | None, chrf: float | None = None):
    def change(rows: Rows) -> Rows:
        row = of(rows, "quality", task="mqar")[0]
        row.update(generated_exact_match=exact, generated_chrf=chrf, num_generated=count)
        return rows

    return change


def without_curves(rows: Rows) -> Rows:
    for row in of(rows, "quality") + of(rows, "quality", "vanilla"):
        row.update(curve_steps=None, curve_loss_nats=None, curve_s=None)
    return rows


BAD_ROWS: dict[str, tuple[str, Callable[[Rows], Rows]]] = {
    "a third of two passages": ("score", wrote(exact=1 / 3, count=2)),
    "passages without a score": ("nulls", wrote(exact=None, count=2)),
    "a chrF of nothing": ("nulls", wrote(exact=None, count=None, chrf=50.0)),
    "a chrF above all": ("range", wrote(exact=0.5, count=2, chrf=101.0)),
    "swapped method names": ("method-hash", swap_methods),
    "a method under another's name": ("method", put("method", "retention")),
    "an edited score": ("score", put("score", 0.99, task="mqar")),
    "an edited score and its examples": ("score", edit_score_and_examples),
    "one example edited": ("score", edit_one_example),
    "flipped bits of right answers": ("score", flip_bits),
    "bits per byte below their loss": ("score", edit_bits_per_byte),
    "a smaller standard error": ("score", put("score_se", 1e-6)),
    "recall from far back, invented": ("score", score_lies_far_back),
    "a dropped failure": ("complete", drop_a_failure),
    "a dropped context": ("complete", drop_a_context),
    "a doubled row": ("key", double_a_row),
    "a cell measured twice": ("cell", measure_twice),
    "a cell of two measurements": ("cell", half_of_a_cell_elsewhere),
    "the best of many seeds": ("seeds", take_the_best_seed),
    "a lucky seed added": ("seeds", add_a_lucky_seed),
    "more seeds of one task": ("complete", more_seeds_of_one_task),
    "more seeds than the anchor": ("complete", more_seeds_than_the_anchor),
    "a future date": ("future", later),
    "a date before lcbench": ("future", put("started_at", datetime(2001, 1, 1, tzinfo=UTC))),
    "another suite version": ("suite", everywhere("suite_version", 99)),
    "another suite": ("suite", everywhere("suite", "quick")),
    "another task version": ("task-hash", put("task_version", 99)),
    "an edited task": ("task-hash", put("task_hash", "0" * 16)),
    "an edited method": ("method-hash", put("method_hash", "0" * 16)),
    "an edited harness": ("harness-hash", everywhere("harness_hash", "0" * 16)),
    "an invented cell id": ("cell-id", put("cell_id", "0" * 24)),
    "a config field there is not": ("config", put("config", '{"window":64,"zeal":1}')),
    "a config that is no JSON": ("config", put("config", "__import__('os').abort()")),
    "a config nested without end": ("config", put("config", "[" * 1_500)),
    "longer training": ("plan", train_longer),
    "another learning rate": ("task", put("learning_rate", 0.5)),
    "a lower floor": ("task", put("floor", 0.0, task="mqar")),
    "a lower ceiling": ("task", put("ceiling", 0.5, task="mqar")),
    "an easier metric": ("task", put("metric", "exact_match", task="mqar")),
    "fewer examples": ("task", fewer_examples),
    "HTML in a device's name": ("text", everywhere("device", "<img src=x onerror=alert(1)>")),
    "a script in a warning": ("text", put("warning", "slow <script>alert(1)</script>", "prefill")),
    "terminal codes in a processor's name": ("text", everywhere("cpu", "\x1b[2J\x1b[31mfast")),
    "text that turns around": ("text", everywhere("os", "Linux \u202e6.1")),
    "a very long string": ("text", everywhere("device", "x" * 5_000)),
    "a path in a warning": ("text", put("warning", "see /home/somebody/notes.txt", "prefill")),
    "a submitter who is no account": ("text", everywhere("submitter", "=cmd|' /C calc'!A0")),
    "a NaN": ("finite", put("loss_nats", float("nan"), task="mqar")),
    "an infinity": ("finite", put("tokens_per_s", float("inf"), "prefill")),
    "a NaN in a list": ("finite", put("score_by_position", [float("nan")])),
    "a negative peak": ("range", put("peak_bytes", -1, "prefill")),
    "time that stood still": ("range", put("timings_ns", [0, 0, 0, 0], "prefill")),
    "two repeats": ("range", put("timings_ns", [5, 5], "prefill")),
    "a status there is not": ("enumeration", put("status", "excellent")),
    "a kind there is not": ("enumeration", put("kind", "telepathy")),
    "a source of memory there is not": ("enumeration", put("memory_source", "felt", "prefill")),
    "a failure with a speed": ("nulls", as_failure),
    "a score that is null": ("nulls", one_value_null("score", "quality")),
    "a seed that is null": ("nulls", one_value_null("seed", "quality")),
    "a quality row with a speed": ("nulls", put("step_ms", 1.0)),
    "a ratio without its parts": ("nulls", one_value_null("vanilla_step_ms", "prefill")),
    "a faster median": ("timing", put("step_ms", lambda ms: ms / 2, "prefill")),
    "a smaller spread": ("timing", put("step_ms_iqr", 0.0, "prefill")),
    "a better ratio": ("timing", put("vs_vanilla", 50.0, "prefill")),
    "milliseconds that are seconds": ("timing", put("step_ms", lambda ms: ms / 1e3, "prefill")),
    "a higher rate": ("rate", put("tokens_per_s", 1e9, "prefill")),
    "a curve that lacks its times": ("nulls", one_value_null("curve_s", "quality")),
    "no curve at all": ("nulls", without_curves),
    "a cost with a curve": ("nulls", put("curve_s", [1.0], "prefill")),
    "a curve with a point less": ("curve", put("curve_s", lambda seconds: seconds[:-1])),
    "a curve of other steps": ("curve", put("curve_steps", lambda steps: [2 * n for n in steps])),
    "a curve whose steps go back": ("curve", put("curve_steps", lambda steps: steps[::-1])),
    "a curve whose clock goes back": ("curve", put("curve_s", lambda seconds: seconds[::-1])),
    "a curve longer than training": ("wall-clock", put("curve_s", lambda s: [n + 99 for n in s])),
    "a curve that is endless": ("range", put("curve_loss_nats", [1.0] * 33)),
    "a loss of a curve that is none": ("finite", put("curve_loss_nats", [float("nan")])),
    "calls longer than the cell": ("wall-clock", put("wall_s", 1e-6, "decode")),
    "training longer than the cell": ("wall-clock", put("train_s", 3_000.0)),
    "a peak below the weights": ("memory", put("peak_bytes", 10, "train_step")),
    "a peak above the device": ("memory", put("peak_bytes", 2**49, "train_step")),
    "a state above the device": ("memory", put("state_bytes", 2**49, "decode")),
    "faster than any processor": ("roofline", lambda rows: faster(rows, 1e7, beside=False)),
    "a slow anchor": ("anchor", slow_anchor),
    "no anchor": ("anchor", without_anchor),
    "an anchor of another machine": ("anchor", anchor_of_another_machine),
    "an anchor on another corpus": ("anchor", another_corpus),
    "two machines under one name": ("machine", two_machines_under_one_name),
    "CUDA on a processor": ("machine", everywhere("cuda", "12.8")),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_caught_by_their_rule(case: str, rows: Rows, seal: Any, tree: Tree) -> None:
    rule, change = BAD_ROWS[case]
    findings = check_content(*seal(change(rows)), tree)
    assert rule in rules_of(findings), findings
    assert "stopped" not in rules_of(findings), findings


def test_a_forgery_that_is_consistent_is_left_to_verify(rows: Rows, seal: Any, tree: Tree) -> None:
    """What the rules cannot see: numbers that all agree with one another; a rerun does."""
    assert check_content(*seal(faster(rows, 1.5, beside=False)), tree) == []


# What may be wrong with a file, whatever its rows.


def written(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **{"compression": "zstd", "write_page_checksum": True, **options})
    return sink.getvalue()


def table_of(rows: Rows) -> Any:
    return pa.Table.from_pylist(rows, schema=store.SCHEMA)


def other_type(column: str, kind: Any) -> Callable[[Rows], bytes]:
    def change(rows: Rows) -> bytes:
        place = store.SCHEMA.get_field_index(column)
        table = table_of(rows)
        return written(table.set_column(place, column, table[column].cast(kind, safe=False)))

    return change


def zstd_bomb(rows: Rows) -> bytes:
    """A page of 400 MB in a few kilobytes."""
    table = table_of(rows)
    place = table.schema.get_field_index("correct_bits")
    zeros = pa.array([b"\0" * 100_000_000] * 4 + [None] * (len(table) - 4), pa.binary())
    return written(table.set_column(place, "correct_bits", zeros), use_dictionary=False)


def dictionary_bomb(rows: Rows) -> bytes:
    """10 GB of text: one string of 500 kB that 20,000 rows name by its number."""
    many = table_of([rows[0]] * 20_000)
    place = many.schema.get_field_index("error")
    numbers = pa.array([0] * len(many), pa.int32())
    texts = pa.DictionaryArray.from_arrays(numbers, pa.array(["x" * 500_000]))
    return written(many.set_column(place, "error", texts), store_schema=False)


def list_bomb(rows: Rows) -> bytes:
    """48 MB of zeros in lists, which pack to next to nothing."""
    zeros = [0.0] * (6_000_000 // len(rows))
    return written(table_of([row | {"score_by_example": zeros} for row in rows]))


def too_many_rows(rows: Rows) -> bytes:
    return written(table_of([rows[0]] * 20_001))


def with_gap(rows: Rows) -> bytes:
    """Bytes of somebody's own between the rows and the footer."""
    content = written(table_of(rows))
    footer = struct.unpack("<I", content[-8:-4])[0] + 8
    return content[:-footer] + b"a message" + content[-footer:]


def flipped(rows: Rows) -> bytes:
    content = bytearray(written(table_of(rows)))
    end_of_rows = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    content[end_of_rows - 3] ^= 16
    return bytes(content)


BAD_FILES: dict[str, tuple[str, Callable[[Rows], bytes]]] = {
    "an extra column": (
        "schema", lambda rows: written(table_of(rows).append_column("note", [["hi"] * len(rows)])),
    ),
    "a missing column": ("schema", lambda rows: written(table_of(rows).drop_columns(["seed"]))),
    "a column twice": (
        "schema",
        lambda rows: written(table_of(rows).append_column("seed", table_of(rows)["seed"])),
    ),
    "columns in another order": (
        "schema", lambda rows: written(table_of(rows).select(sorted(store.SCHEMA.names))),
    ),
    "int where float belongs": ("schema", other_type("wall_s", pa.int64())),
    "float where int belongs": ("schema", other_type("seed", pa.float64())),
    "text where a number belongs": ("schema", other_type("seed", pa.string())),
    "a zstd bomb": ("unpacked", zstd_bomb),
    "a dictionary bomb of 10 GB": ("unpacked", dictionary_bomb),
    "a bomb of lists": ("unpacked", list_bomb),
    "too many rows": ("unpacked", too_many_rows),
    "no rows": ("unpacked", lambda rows: written(store.SCHEMA.empty_table())),
    "more than a megabyte": ("size", lambda rows: b"PAR1" + b"\0" * 1_000_000 + b"PAR1"),
    "an empty file": ("parquet", lambda rows: b""),
    "another kind of file": ("parquet", lambda rows: b"\x80\x04cos\nsystem\n(S'ls'\ntR."),
    "half a file": ("parquet", lambda rows: written(table_of(rows))[:20_000]),
    "a flipped bit": ("parquet", flipped),
    "no checksums": ("layout", lambda rows: written(table_of(rows), write_page_checksum=False)),
    "two row groups": ("layout", lambda rows: written(table_of(rows), row_group_size=5)),
    "a message in the footer": (
        "layout", lambda rows: written(table_of(rows).replace_schema_metadata({"note": "hello"})),
    ),
    "a message before the footer": ("layout", with_gap),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_caught_by_their_rule(case: str, rows: Rows, seal: Any, tree: Tree) -> None:
    rule, change = BAD_FILES[case]
    findings = check_content(change(rows), seal(rows).name, tree)
    assert rules_of(findings) == {rule}, findings


@pytest.mark.parametrize(
    ("rule", "rename"),
    [
        ("digest", lambda name: name[:-20] + "0" * 12 + ".parquet"),
        ("date", lambda name: name.replace("20", "21", 1).replace("/21", "/20", 1)),
        ("path", lambda name: f"../../{name}"),
        ("path", lambda name: f"/etc/{name}"),
        ("path", lambda name: name.replace("smoke", "..")),
        ("path", lambda name: name.replace("smoke", "SMOKE")),
        ("path", lambda name: name + "\n"),
        ("path", lambda name: name.replace(SLIDING, "a;rm -rf .")),
        ("path", lambda name: name.replace(".parquet", ".pkl")),
        ("method", lambda name: name.replace(SLIDING, "retention")),
        ("method", lambda name: name.replace(SLIDING, "no-such-method")),
        ("suite", lambda name: name.replace("smoke", "quick")),
        ("suite", lambda name: name.replace("smoke", "no-such-suite")),
    ],
)
def test_a_renamed_file_is_caught(
    rule: str, rename: Callable[[str], str], rows: Rows, seal: Any, tree: Tree
) -> None:
    content, name = seal(rows)
    if rule == "date":
        found = NAME.fullmatch(name)
        assert found is not None
        name = name.replace(found["day"], "2025-02-03")
    else:
        name = rename(name)
    findings = check_content(content, name, tree)
    assert rule in rules_of(findings), findings
    assert all(finding.path.isprintable() for finding in findings)


# Several files, and what was published before.


def test_a_row_published_before_is_told(rows: Rows, seal: Any, tmp_path: Path) -> None:
    content, name = seal(rows)
    published = tmp_path / "published"
    tree = read_tree(None, published)
    assert check_content(content, name, tree) == []
    again = seal([row | {"submitter": "somebody-else"} for row in rows])
    assert rules_of(check_content(*again, tree)) == {"key", "anchor"}


def test_two_methods_may_bring_the_same_anchor_rows(rows: Rows, seal: Any, tmp_path: Path) -> None:
    seal([row for row in rows if row["method"] == "vanilla"], "vanilla")
    published = tmp_path / "published"
    tree = read_tree(None, published)
    assert check_content(*seal(rows), tree) == []
    of(rows, "decode", "vanilla")[0]["load_average"] = 0.001
    assert rules_of(check_content(*seal(rows), tree)) == {"anchor"}


def test_what_was_published_outlives_the_code_that_measured_it(
    rows: Rows, seal: Any, tmp_path: Path
) -> None:
    for column in ("harness_hash", "method_hash"):
        rows = everywhere(column, "0" * 16)(rows)
    content, name = seal(rows)
    assert rules_of(check_content(content, name, read_tree())) == {"harness-hash", "method-hash"}
    assert check_content(content, name, read_tree(is_current=False)) == []


def test_what_was_published_before_there_were_curves_has_none(rows: Rows, seal: Any) -> None:
    assert check_content(*seal(without_curves(rows)), read_tree(is_current=False)) == []


def test_links_and_strange_files_are_told_and_not_followed(
    rows: Rows, seal: Any, tree: Tree, tmp_path: Path
) -> None:
    _, name = seal(rows)
    published = tmp_path / "published"
    real = published / name
    link = real.with_name("2026-01-01-000000000000.parquet")
    link.symlink_to("/dev/zero")
    runnable = real.with_name("2026-01-02-000000000000.parquet")
    runnable.write_bytes(real.read_bytes())
    runnable.chmod(0o755)
    (published / "notes.txt").write_text("hello")
    found = check_paths([published], tree, published)
    by_name = {path: rules_of([f for f in found if f.path == path]) for path, *_ in found}
    assert by_name[link.relative_to(published).as_posix()] == {"regular-file"}
    assert "regular-file" in by_name[runnable.relative_to(published).as_posix()]
    assert "path" in by_name["notes.txt"]
    assert name not in by_name


def test_every_fault_is_told_and_each_once(rows: Rows, seal: Any, tree: Tree) -> None:
    for row in rows:
        row["cpu"] = "\x07"
        row["commit"] = "main"
    of(rows, "prefill")[0]["tokens_per_s"] *= 2
    findings = check_content(*seal(rows), tree)
    assert rules_of(findings) == {"text", "rate"}
    assert len(findings) == 3
    assert f"and {len(rows) - 1} more rows" in findings[0].message


def test_every_rule_is_told_in_a_sentence() -> None:
    assert all(what.endswith(".") and len(what) > 20 for what in RULES.values())


def test_ids_are_those_a_run_writes(honest_rows: Rows) -> None:
    before = [row["cell_id"] for row in honest_rows]
    assert [row["cell_id"] for row in with_ids(copy.deepcopy(honest_rows))] == before
