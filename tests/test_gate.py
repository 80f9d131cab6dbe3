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


@pytest.mark.parametrize(("gap", "word"), [(0.01, "fail"), (0.2, "pass")])
def test_a_real_task_must_separate_methods_by_more_than_seeds_scatter(gap, word) -> None:
    scores = [3.0, 3.02, 2.98, 3.01, 2.99]
    bits = {"metric": "bits_per_byte", "floor": 5.0, "ceiling": 0.0}
    frame = pd.concat(
        [
            rows("text", "vanilla", scores, **bits),
            rows("text", "window", [score + gap for score in scores], **bits),
        ]
    )
    assert verdict(frame, REAL).startswith(word)


def test_a_suite_without_results_does_not_pass() -> None:
    table, passed = judge_suite(rows("elsewhere", "vanilla", [1.0]), "quick")
    assert table.empty
    assert not passed
