import datetime as dt

import pandas as pd
import pytest

from lcbench import ranking, store
from lcbench.budgets import budgets, within

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def score(method: str, value: float | None, **columns: object) -> store.Row:
    return {
        "run_id": "run", "cell_id": "cell", "kind": "quality", "suite": "quick",
        "suite_version": 1, "task": "mqar", "task_version": 1, "task_config": "{}",
        "method": method, "config": "{}", "train_context": 64, "context": 64, "seed": 0,
        "status": "ok", "metric": "accuracy", "score": value, "floor": 0.0, "ceiling": 1.0,
        "train_steps": 100, "train_tokens": 6400, "started_at": START, "device_kind": "cpu",
        **columns,
    }  # fmt: skip


def frame(*rows: store.Row) -> pd.DataFrame:
    return store.to_table(rows).to_pandas()


ROWS = (
    score("vanilla", 0.8, train_s=10.0),
    score("vanilla", 0.8, train_s=12.0, seed=1),
    score("vanilla", 0.7, train_s=12.0, seed=1, context=128),
    score("fast", 0.6, train_s=5.0),
    score("even", 0.6, train_s=12.0),
    score("slow", 0.9, train_s=12.2),
    score("old", 0.9),
    score("broken", None, status="oom"),
    score("longer", 0.9, train_s=9.0, train_steps=200),
    {**score("slow", None), "kind": "prefill", "task": None, "cell_id": "cost"},
)


def test_a_budget_is_told_beside_vanillas() -> None:
    found = budgets(frame(*ROWS)).set_index("method")
    assert found["train_s"].dropna().to_dict() == {
        "vanilla": 11.0, "fast": 5.0, "even": 12.0, "slow": 12.2, "longer": 9.0
    }  # fmt: skip
    assert found.loc["fast", "time_vs_vanilla"] == pytest.approx(5 / 11)
    assert found.loc["vanilla", "time_vs_vanilla"] == 1.0
    assert found["train_steps"].to_dict()["longer"] == 200
    alone = budgets(frame(ROWS[3]))
    assert alone["time_vs_vanilla"].isna().all()


def test_in_equal_time_who_was_slower_had_not_finished() -> None:
    rows = within(frame(*ROWS), "time")
    scored = rows[rows["kind"] == "quality"].set_index(["method", "seed", "context"])
    assert scored["status"].to_dict() == {
        ("vanilla", 0, 64): "ok", ("vanilla", 1, 64): "ok", ("vanilla", 1, 128): "ok",
        ("fast", 0, 64): "ok", ("even", 0, 64): "ok", ("slow", 0, 64): "timeout",
        ("broken", 0, 64): "oom", ("longer", 0, 64): "ok",
    }  # fmt: skip
    assert (rows["kind"] == "prefill").sum() == 1
    board = ranking.leaderboard(rows).set_index("method")
    assert board.loc["slow", "quality"] == 0.0
    assert (
        board.loc["fast", "quality"]
        == ranking.leaderboard(frame(*ROWS)).set_index("method").loc["fast", "quality"]
    )


def test_in_equal_steps_other_budgets_are_left_out() -> None:
    rows = within(frame(*ROWS), "steps")
    assert set(rows["method"]) == {"vanilla", "fast", "even", "slow", "old", "broken"}
    assert (rows.loc[rows["kind"] == "quality", "status"] == "ok").sum() == 7


def test_without_vanilla_no_time_is_equal() -> None:
    assert within(frame(*ROWS[3:5]), "time").empty
