"""The gate that a task passes before a suite may ask it."""

import pandas as pd
import pytest

from lcbench.gate import Oracle, gate, judge_suite


def rows(task: str, method: str, scores: list[float], **fields: object) -> pd.DataFrame:
    shared = {
        "suite": "s", "suite_version": 1, "device_kind": "cpu", "kind": "quality", "task": task,
        "task_version": 1, "task_hash": "t", "task_config": "{}", "data_hash": None,
        "method": method, "method_hash": method, "config": "{}", "dtype": "float32",
        "train_context": 64, "context": 64, "status": "ok", "metric": "accuracy", "floor": 0.2,
        "ceiling": 1.0, "started_at": pd.Timestamp("2026-01-01", tz="UTC"), "score_se": 0.01,
    }  # fmt: skip
    return pd.DataFrame([shared | fields | {"seed": s, "score": x} for s, x in enumerate(scores)])


SYNTHETIC = {"recall": Oracle("vanilla", real=False)}
REAL = {"text": Oracle("vanilla", real=True)}


def verdict(frame: pd.DataFrame, oracles: dict[str, Oracle], method: str = "vanilla") -> str:
    table = gate(frame, oracles)
    return table.set_index("method")["verdict"][method]


def test_a_task_passes_where_its_oracle_solves_four_of_five_seeds() -> None:
    others = rows("recall", "window", [0.2] * 5)
    solved = rows("recall", "vanilla", [1.0, 0.93, 0.2, 0.95, 0.99])
    table = gate(pd.concat([solved, others]), SYNTHETIC).set_index("method")
    assert table["verdict"]["vanilla"] == "pass: 4 of 5 seeds solved it"
    assert table["verdict"]["window"] == ""
    assert table["worst"]["vanilla"] == pytest.approx(0.0)
    assert table["median"]["vanilla"] == pytest.approx((0.95 - 0.2) / 0.8)


def test_a_score_is_held_to_the_bar_between_floor_and_ceiling() -> None:
    # 0.91 of the answers is 0.89 of the way from the floor of 0.2.
    frame = rows("recall", "vanilla", [0.91, 0.91, 1.0, 1.0, 1.0])
    assert verdict(frame, SYNTHETIC) == "fail: 3 of 5 seeds solved it"


def test_a_seed_that_failed_has_not_solved_it() -> None:
    frame = rows("recall", "vanilla", [1.0] * 5)
    frame.loc[[0, 1], ["status", "score"]] = ["timeout", None]
    assert verdict(frame, SYNTHETIC).startswith("fail: 3 of 5")


def test_too_few_seeds_decide_nothing() -> None:
    assert verdict(rows("recall", "vanilla", [1.0] * 4), SYNTHETIC).startswith("undecided")
    assert verdict(rows("text", "vanilla", [3.0] * 5), REAL).startswith("undecided")


def test_other_contexts_than_the_trained_one_do_not_count() -> None:
    near = rows("recall", "vanilla", [1.0] * 5)
    far = rows("recall", "vanilla", [0.2] * 5, context=128)
    assert verdict(pd.concat([near, far]), SYNTHETIC).startswith("pass")


BITS = {"metric": "bits_per_byte", "floor": 5.0, "ceiling": 0.0}
HARD_TO_EASY = [3.0, 2.9, 2.8, 3.1, 3.2]
"""Bits a byte of five seeds: the texts differ more than methods do."""


def text(method: str, gaps: list[float], **fields: object) -> pd.DataFrame:
    scores = [score + gap for score, gap in zip(HARD_TO_EASY, gaps, strict=True)]
    return rows("text", method, scores, **BITS, **fields)


@pytest.mark.parametrize(
    ("gaps", "word"),
    [
        # Means 0.1 apart; within a seed that scatters by 0.04 and by 0.079.
        ([0.1, 0.06, 0.14, 0.14, 0.06], "pass"),
        ([0.1, 0.05, 0.2, 0.15, 0.0], "fail"),
    ],
)
def test_what_scatters_is_the_difference_on_the_same_examples(gaps, word) -> None:
    frame = pd.concat([text("vanilla", [0.0] * 5), text("window", gaps)])
    assert verdict(frame, REAL).startswith(word)
    table = gate(frame, REAL)
    spread = {"pass": 0.04, "fail": 0.0790569}[word]
    assert table["separation"].to_numpy() == pytest.approx([0.1, 0.1])
    assert table["spread"].to_numpy() == pytest.approx([spread, spread])


def test_of_many_methods_two_lie_farther_apart_by_chance() -> None:
    # 2.2 standard deviations: enough of two methods, less than the farthest of twelve reach.
    gaps = [0.1, 0.06, 0.15, 0.14, 0.05]
    two = pd.concat([text("vanilla", [0.0] * 5), text("window", gaps)])
    more = [text(f"m{i}", [0.04, 0.05, 0.06, 0.05, 0.04]) for i in range(10)]
    assert verdict(two, REAL).startswith("pass")
    assert verdict(pd.concat([two, *more]), REAL).startswith("fail: window and vanilla lie 0.1")


def test_a_method_with_too_few_seeds_does_not_hinder_the_others() -> None:
    ahead = text("window", [0.1, 0.09, 0.11, 0.1, 0.1])
    frame = pd.concat([text("vanilla", [0.0] * 5), ahead, text("late", [9.0] * 5)[:1]])
    assert verdict(frame, REAL).startswith("pass: window and vanilla")


def test_two_configs_of_a_method_are_two_methods() -> None:
    solved = rows("recall", "vanilla", [1.0] * 5)
    other = rows("recall", "vanilla", [0.2] * 5, config='{"window":8}')
    table = gate(pd.concat([solved, other]), SYNTHETIC).set_index("method")
    assert table["seeds"].tolist() == [5, 5]
    # The task can be solved: by the form of its oracle that does best.
    assert table["verdict"]["vanilla"] == "pass: 5 of 5 seeds solved it"
    assert table["verdict"]["vanilla:window=8"] == ""


def test_a_suite_is_judged_by_what_it_asks_on_its_own_device() -> None:
    asked = '{"noise":false,"num_pairs":3,"power_a":1.0,"vocab_size":64}'
    good = rows("mqar", "vanilla", [1.0] * 5, task_config=asked)
    easier = rows("mqar", "vanilla", [1.0] * 5, task_config='{"num_pairs":2}')
    elsewhere = rows("mqar", "vanilla", [0.2] * 5, task_config=asked, device_kind="cuda")
    table, _ = judge_suite(pd.concat([good, easier, elsewhere]), "quick")
    assert table[["task", "seeds"]].to_numpy().tolist() == [["mqar", 5]]
    assert table["verdict"][0] == "pass: 5 of 5 seeds solved it"


def test_a_suite_without_results_does_not_pass() -> None:
    table, passed = judge_suite(rows("elsewhere", "vanilla", [1.0]), "quick")
    assert table.empty
    assert not passed
