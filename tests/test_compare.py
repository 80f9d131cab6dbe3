import datetime as dt
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lcbench import store
from lcbench.compare import COMPARE_COLUMNS, compare
from lcbench.compare_text import part_of, verdict
from lcbench.config import UsageError
from lcbench.statistics import sign_flip_test, sign_test, smallest_effect

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def score(method: str, examples: list[float] | None, **columns: object) -> store.Row:
    return {
        "run_id": "run", "cell_id": f"{method}{columns}", "kind": "quality", "suite": "quick",
        "suite_version": 1, "task": "mqar", "task_version": 1, "task_config": "{}",
        "method": method, "config": "{}", "train_context": 64, "context": 64, "seed": 0,
        "status": "ok", "metric": "exact_match", "score": 0.5, "floor": 0.0, "ceiling": 1.0,
        "score_by_example": examples, "dtype": "float32",
        "started_at": START, "device_kind": "cpu", **columns,
    }  # fmt: skip


def cost(method: str, **columns: object) -> store.Row:
    measured = {"kind": "prefill", "context": 512, "batch": 1, "score": None, "metric": None}
    return {**score(method, None), "task": None, **measured, **columns}


def frame(*rows: store.Row) -> pd.DataFrame:
    return store.to_table(rows).to_pandas()


RIGHT = [1.0] * 30 + [0.0] * 10
FEWER = [1.0] * 20 + [0.0] * 19 + [1.0]


def test_right_and_wrong_examples_are_compared_by_mcnemars_exact_test() -> None:
    rows = frame(score("a", RIGHT), score("b", FEWER))
    [got] = compare(rows, "a", "b").scores.to_dict("records")
    assert (got["score_a"], got["score_b"]) == (0.75, 0.525)
    assert got["difference"] == pytest.approx(0.225)
    assert (got["test"], got["p"]) == ("sign", sign_test(10, 1))
    assert (got["seeds"], got["examples"], got["better"]) == (1, 40, "a")
    error = np.std(np.array(RIGHT) - np.array(FEWER), ddof=1) / math.sqrt(40)
    assert got["high"] - got["difference"] == pytest.approx(1.96 * error)
    assert got["smallest_effect"] == pytest.approx(smallest_effect(error))
    [back] = compare(rows, "b", "a").scores.to_dict("records")
    assert (back["difference"], back["p"], back["better"]) == (-got["difference"], got["p"], "a")


def test_where_nothing_differs_no_spread_is_claimed() -> None:
    same = frame(score("a", RIGHT), score("b", RIGHT))
    [got] = compare(same, "a", "b").scores.to_dict("records")
    assert (got["difference"], got["p"], got["better"]) == (0.0, 1.0, None)
    assert math.isnan(got["low"])
    # Six wins of six are the fewest that the sign test believes.
    assert got["smallest_effect"] == 6 / 40
    assert sign_test(5, 0) > 0.05 > sign_test(6, 0)
    bits = frame(*(score(m, [2.5] * 9, metric="bits_per_byte") for m in "ab"))
    [got] = compare(bits, "a", "b").scores.to_dict("records")
    assert math.isnan(got["smallest_effect"])


def test_fewer_bits_are_better_and_are_compared_by_sign_flips() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(4.0, 1.0, 64)
    easy = hard - rng.normal(0.1, 0.05, 64)
    bits = {"metric": "bits_per_byte"}
    rows = frame(score("a", easy.tolist(), **bits), score("b", hard.tolist(), **bits))
    [got] = compare(rows, "a", "b").scores.to_dict("records")
    assert got["better"] == "a"
    assert got["difference"] == pytest.approx((easy - hard).mean())
    assert (got["test"], got["p"]) == ("sign flips", sign_flip_test(easy - hard))
    # Paired: the texts' own spread, ten times the gap, does not hide it.
    assert got["smallest_effect"] < 0.1


def test_seeds_that_disagree_tell_nobody_apart() -> None:
    ahead = score("a", [1.0] * 40), score("b", [0.0] * 40)
    behind = score("a", [0.4] * 40, seed=1), score("b", [0.5] * 40, seed=1)
    [alone] = compare(frame(*ahead), "a", "b").scores.to_dict("records")
    [both] = compare(frame(*ahead, *behind), "a", "b").scores.to_dict("records")
    assert alone["better"] == "a"
    assert both["better"] is None
    assert both["difference"] == pytest.approx(0.45)
    assert both["difference"] - both["low"] == pytest.approx(
        1.96 * np.std([1, -0.1], ddof=1) / 2**0.5
    )


def test_only_the_same_examples_are_paired() -> None:
    rows = frame(
        score("a", RIGHT), score("b", FEWER),
        score("a", RIGHT, seed=1), score("b", FEWER, seed=2),
        score("a", RIGHT, task="copy"), score("b", FEWER[:-1], task="copy"),
        score("a", RIGHT, context=128), score("b", None, context=128, status="oom"),
        score("a", RIGHT, suite="long"), score("b", FEWER, suite="long"),
    )  # fmt: skip
    found = compare(rows, "a", "b").scores
    assert found[["suite", "task", "context", "seeds"]].to_numpy().tolist() == [
        ["long", "mqar", 64, 1], ["quick", "mqar", 64, 1]
    ]  # fmt: skip


def test_costs_are_ratios_where_both_finished() -> None:
    rows = frame(
        score("a", RIGHT), score("b", FEWER),
        cost("a", vs_vanilla=3.0, peak_bytes=10, state_bytes=0),
        cost("b", vs_vanilla=1.5, peak_bytes=40, state_bytes=0),
        cost("a", vs_vanilla=3.0, context=1024),
    )  # fmt: skip
    [got] = compare(rows, "a", "b").costs.to_dict("records")
    assert (got["kind"], got["context"], got["speed"], got["memory"]) == ("prefill", 512, 2.0, 0.25)
    assert math.isnan(got["state"])


def test_names_that_do_not_say_whom_are_told_so() -> None:
    wide, narrow = ({"config": json.dumps({"window": w})} for w in (512, 64))
    rows = frame(
        score("sliding-window", RIGHT, **wide), score("sliding-window", FEWER, **narrow),
        score("vanilla", RIGHT, seed=5), score("vanilla", FEWER, seed=6, dtype="bfloat16"),
    )  # fmt: skip
    one = compare(rows, "sliding-window:window=512", "sliding-window:window=64")
    assert (one.a, one.b) == ("sliding-window:window=512", "sliding-window:window=64")
    for a, b, message in (
        ("vanila", "sliding-window:window=64", "did you mean 'vanilla'"),
        ("sliding-window", "vanilla", "several forms, name one of: sliding-window:window=512"),
        ("sliding-window:window=65", "vanilla", "did you mean 'sliding-window:window=6"),
        ("vanilla:dtype=float32", "vanilla:dtype=float32", "are the same"),
        ("vanilla:dtype=float32", "sliding-window:window=64", "share no example"),
    ):
        with pytest.raises(UsageError, match=message):
            compare(rows, a, b)


def test_the_command_prints_tables_and_data(lcbench, tmp_path: Path) -> None:
    rows = [
        score("a", RIGHT), score("b", FEWER), score("b", FEWER, method_hash="old"),
        cost("a", vs_vanilla=3.0), cost("b", vs_vanilla=1.5),
    ]  # fmt: skip
    store.write_rows(tmp_path / "rows.parquet", rows)
    shown = lcbench("compare", "a", "b", "--results", "rows.parquet")
    assert "22.5 [" in shown.stdout, shown.stderr
    assert "2.00×" in shown.stdout
    assert "1 row put aside: 1 measured again since" in shown.stdout
    [quality, prefill] = json.loads(
        lcbench("compare", "a", "b", "--results", "rows.parquet", "--format", "json").stdout
    )
    assert (quality["kind"], quality["better"]) == ("quality", "a")
    assert (prefill["kind"], prefill["speed"]) == ("prefill", 2.0)
    wrong = lcbench("compare", "a", "c", "--results", "rows.parquet")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no results of 'c'; there are: a, b" in wrong.stderr


def test_only_the_listed_columns_are_needed(tmp_path: Path) -> None:
    store.write_rows(tmp_path / "rows.parquet", [score("a", RIGHT), score("b", FEWER)])
    read = store.read_rows([tmp_path], COMPARE_COLUMNS).frame
    assert len(compare(read, "a", "b").scores) == 1


def buckets(right: list[float | None], count: list[int]) -> dict[str, object]:
    return {"score_by_distance": right, "count_by_distance": count}


def test_distances_tell_where_one_is_better() -> None:
    far = [5, 0, 100, 100]
    rows = frame(
        score("a", RIGHT, **buckets([1.0, None, 1.0, 0.9], far)),
        score("b", FEWER, **buckets([1.0, None, 0.95, 0.1], far)),
        score("a", RIGHT, seed=1, **buckets([1.0, None, 1.0, 0.5], far)),
        score("b", FEWER, seed=1, **buckets([1.0, None, 0.95, 0.1], far)),
        score("a", RIGHT, context=128, **buckets([1.0], [9])),
        score("b", FEWER, context=128, **buckets([0.0], [8])),
    )
    found = compare(rows, "a", "b").distances
    assert found["distance_from"].tolist() == [1, 4, 8]  # asked alike, and of someone
    assert found["answers"].tolist() == [10, 200, 200]
    assert found["difference"].tolist() == pytest.approx([0.0, 0.05, 0.6])
    # Seeds that lie 0.4 apart outweigh 200 answers.
    assert found["low"].iloc[2] == pytest.approx(0.6 - 1.96 * np.std([0.8, 0.4], ddof=1) / 2**0.5)
    assert found["better"].fillna("").tolist() == ["", "a", "a"]
    # All right on both sides of few answers still leaves room for a difference.
    assert found["high"].iloc[0] > 0.1


def test_the_verdict_says_who_wins_where() -> None:
    bits = {"task": "code-lm", "metric": "bits_per_byte"}
    rows = frame(
        score("a", RIGHT, **buckets([1.0, 1.0, 0.9], [50, 50, 50])),
        score("b", FEWER, **buckets([1.0, 0.2, 0.1], [50, 50, 50])),
        score("a", RIGHT, context=128), score("b", RIGHT, context=128),
        score("a", [2.0, 2.1] * 20, **bits), score("b", [1.9, 1.8] * 20, **bits),
        cost("a", vs_vanilla=3.0), cost("b", vs_vanilla=1.5),
        cost("a", vs_vanilla=3.0, context=1024), cost("b", vs_vanilla=4.0, context=1024),
    )  # fmt: skip
    assert verdict(part_of(compare(rows, "a", "b"), "quick", "cpu")) == [
        "Of 3 lines, a is better on 1 and b on 1; 1 not told apart."
        " All hold when corrected for 3 tests (Holm).",
        "code-lm: b at 64*.",
        "mqar: a at 64*; not told apart at 128.",
        "mqar at 64 tokens, by distance to the evidence: a at 2–7; not told apart at 1.",
        "a over b at the longest context both finished: prefill at 1,024 speed 0.75×.",
    ]


def test_a_win_that_the_number_of_tests_explains_is_not_counted_as_firm() -> None:
    lucky = [1.0] * 6 + [0.5] * 34, [0.0] * 6 + [0.5] * 34  # p is 1/32
    rows = [score("a", lucky[0]), score("b", lucky[1])]
    for context in (128, 256):
        rows += [score("a", RIGHT, context=context), score("b", RIGHT, context=context)]
    found = compare(frame(*rows), "a", "b")
    assert found.scores["better"].fillna("").tolist() == ["a", "", ""]
    assert found.scores["p_holm"].tolist() == pytest.approx([3 / 32, 1.0, 1.0])
    assert "0 of those 1 hold" in verdict(part_of(found, "quick", "cpu"))[0]
