import datetime as dt
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from lcbench import store, tables
from lcbench.learning import mean_curves
from lcbench.ranking import equal_time, learning_curves

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
KEYS = ["method", "seed"]


def trained(
    method: str, seconds: list[float], losses: list[float], steps: int = 100, **columns: object
) -> store.Row:
    """A quality row with a curve of equal spans."""
    number = len(seconds)
    return {
        "run_id": "run", "cell_id": f"{method}{columns}", "kind": "quality", "suite": "quick",
        "suite_version": 1, "task": "mqar", "task_version": 1, "task_config": "{}",
        "method": method, "config": "{}", "train_context": 64, "context": 64, "seed": 0,
        "status": "ok", "metric": "accuracy", "score": 0.5, "floor": 0.0, "ceiling": 1.0,
        "started_at": START, "device_kind": "cpu", "env_id": "here", "device": "a processor",
        "threads": 2, "deterministic": False,
        "curve_steps": [steps * (n + 1) // number for n in range(number)],
        "curve_loss_nats": losses, "curve_s": seconds, **columns,
    }  # fmt: skip


def frame(*rows: store.Row) -> pd.DataFrame:
    return store.to_table(rows).to_pandas()


FAST = trained("fast", [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.5, 2.2])
SLOW = trained("slow", [2.0, 4.0, 6.0, 8.0], [3.0, 2.0, 1.0, 0.5])


def test_a_curve_is_a_row_a_point() -> None:
    found = learning_curves(frame(FAST, SLOW))
    slow = found[found["method"] == "slow"]
    assert slow["point"].tolist() == [0, 1, 2, 3]
    assert slow["steps"].tolist() == [25, 50, 75, 100]
    assert slow["seconds"].tolist() == [2.0, 4.0, 6.0, 8.0]
    assert slow["loss_nats"].tolist() == [3.0, 2.0, 1.0, 0.5]
    assert set(slow["env_id"]) == {"here"}
    assert len(found) == 8


def test_a_model_scored_at_several_contexts_was_trained_once() -> None:
    assert len(learning_curves(frame(FAST, {**FAST, "context": 128}))) == 4


def test_of_a_model_trained_again_the_newest_counts() -> None:
    again = trained("fast", [9.0], [1.0], context=128, started_at=START + dt.timedelta(hours=1))
    assert learning_curves(frame(FAST, again))["seconds"].tolist() == [9.0]


@pytest.mark.parametrize(
    "columns",
    [
        {"curve_steps": None, "curve_loss_nats": None, "curve_s": None},
        {"curve_s": [1.0]},
        {"status": "oom"},
        {"kind": "prefill"},
    ],
)
def test_what_has_no_whole_curve_has_no_row(columns: store.Row) -> None:
    assert set(learning_curves(frame(SLOW, FAST | columns))["method"]) == {"slow"}
    assert learning_curves(frame(FAST | columns)).empty
    assert equal_time(frame(FAST | columns)).empty


def test_at_equal_steps_the_slow_one_wins_and_in_equal_time_it_is_behind_its_end() -> None:
    found = equal_time(frame(FAST, SLOW)).set_index("method")
    fast, slow = found.loc["fast"], found.loc["slow"]
    assert fast["equal_s"] == slow["equal_s"] == 4.0
    assert (fast["loss_at_steps"], fast["loss_at_time"]) == (2.2, 2.2)
    assert (slow["loss_at_steps"], slow["loss_at_time"]) == (0.5, 2.0)
    assert (fast["relative_time"], slow["relative_time"]) == (1.0, 2.0)
    assert (fast["steps_at_time"], slow["steps_at_time"]) == (100, 50)
    assert (slow["train_s"], slow["steps"], slow["num_seeds"]) == (8.0, 100, 1)


def test_between_two_points_the_loss_is_on_the_line_between_them() -> None:
    late = trained("late", [3.0, 7.0], [5.0, 1.0])
    assert equal_time(frame(FAST, late)).set_index("method").loc["late", "loss_at_time"] == 4.0


def test_before_its_first_point_nothing_is_known_of_a_method() -> None:
    slowest = trained("slowest", [5.0, 10.0], [5.0, 1.0])
    found = equal_time(frame(FAST, slowest)).set_index("method").loc["slowest"]
    assert np.isnan(found["loss_at_time"])
    assert np.isnan(found["steps_at_time"])
    assert found["relative_time"] == 2.5


@pytest.mark.parametrize(
    "columns", [{"env_id": "there"}, {"device": "another"}, {"threads": 4}, {"deterministic": True}]
)
def test_seconds_of_two_machines_are_never_compared(columns: store.Row) -> None:
    found = equal_time(frame(FAST, SLOW | columns)).set_index("method")
    assert found["equal_s"].to_dict() == {"fast": 4.0, "slow": 8.0}
    assert set(found["relative_time"]) == {1.0}


def test_trainings_of_other_lengths_are_not_compared() -> None:
    longer = trained("longer", [1.0, 2.0], [4.0, 3.0], steps=200)
    assert set(equal_time(frame(FAST, SLOW, longer)).groupby("equal_s").size()) == {2, 1}


def test_means_are_over_the_seeds_that_all_have() -> None:
    rows = [
        FAST,
        trained("fast", [2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 0.5, 0.2], seed=1),
        trained("fast", [9.0, 19.0, 29.0, 39.0], [9.0, 9.0, 9.0, 9.0], seed=2),
        SLOW,
        trained("slow", [3.0, 6.0, 9.0, 12.0], [3.0, 2.0, 1.0, 0.5], seed=1),
        trained("stray", [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0], seed=7),
    ]
    found = equal_time(frame(*rows)).set_index("method")
    assert set(found.index) == {"fast", "slow"}
    assert found["train_s"].to_dict() == {"fast": 4.5, "slow": 10.0}
    assert found["loss_at_steps"].to_dict() == pytest.approx({"fast": 1.2, "slow": 0.5})
    # Slow's mean curve has its points at 2.5, 5, 7.5 and 10 seconds.
    assert found.loc["slow", "loss_at_time"] == pytest.approx(3.0 - 2.0 / 2.5)
    assert set(found["num_seeds"]) == {2}


def test_a_mean_curve_is_of_the_steps_that_all_seeds_have() -> None:
    finer = trained("fast", [1.0, 2.0], [2.0, 1.0], seed=1)
    found = mean_curves(learning_curves(frame(FAST, finer)))
    assert found["steps"].tolist() == [50, 100]
    assert found["loss_nats"].tolist() == [2.5, 1.6]
    assert found["seconds"].tolist() == [1.5, 3.0]


def test_the_order_of_rows_changes_nothing() -> None:
    rows = [FAST, SLOW, trained("other", [1.0, 9.0], [2.0, 1.0])]
    pd.testing.assert_frame_equal(equal_time(frame(*rows[::-1])), equal_time(frame(*rows)))


def shown(*rows: store.Row) -> list[list[str]]:
    """What the leaderboard in equal time prints, word by word."""
    out = Console(file=io.StringIO(), width=160)
    tables.show_leaderboard(frame(*rows), out, None, tables.Show(budget="time"))
    assert isinstance(out.file, io.StringIO)
    return [line.split() for line in out.file.getvalue().splitlines()]


def test_the_leaderboard_in_equal_time_shows_what_a_slower_method_had_by_then() -> None:
    vanilla = FAST | {"method": "vanilla", "train_s": 4.1, "train_steps": 100}
    slow = SLOW | {"train_s": 8.1, "train_steps": 100}
    lines = shown(vanilla, slow)
    assert ["mqar,", "training", "loss", "in", "equal", "time:", "a", "processor"] in lines
    assert ["vanilla", "2.200", "1.00", "2.200", "100"] in lines
    assert ["slow", "0.500", "2.00", "2.000", "50"] in lines
    slowest = slow | {"curve_s": [5.0, 6.0, 7.0, 8.0]}
    assert ["slow", "0.500", "2.00", "–", "–"] in shown(vanilla, slowest)
    without = dict.fromkeys(("curve_steps", "curve_loss_nats", "curve_s"))
    told = " ".join(word for line in shown(vanilla, slow | without) for word in line)
    assert "no two methods have learning curves" in told


@st.composite
def rivals(draw: st.DrawFn) -> list[store.Row]:
    number = draw(st.integers(1, 6))
    times = st.lists(st.floats(0.01, 100), min_size=number, max_size=number)
    losses = st.lists(st.floats(0, 10), min_size=number, max_size=number)
    return [
        trained(f"m{entry}", np.cumsum(draw(times)).tolist(), draw(losses), seed=seed)
        for entry in range(draw(st.integers(2, 4)))
        for seed in range(draw(st.integers(1, 2)))
    ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rivals())
def test_a_rival_may_change_the_common_time_and_no_methods_own_curve(rows: list[store.Row]) -> None:
    fewer = [row for row in rows if row["method"] != "m0"]
    whole = learning_curves(frame(*rows))
    kept = whole[whole["method"] != "m0"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, learning_curves(frame(*fewer)))
    # With the same seeds all round, neither does it change what a method had at its end.
    first = [row for row in rows if row["seed"] == 0]
    raced = equal_time(frame(*first)).set_index("method")
    without = equal_time(frame(*(r for r in first if r["method"] != "m0"))).set_index("method")
    own = ["loss_at_steps", "train_s", "steps", "num_seeds"]
    pd.testing.assert_frame_equal(raced.loc[without.index, own], without[own])
    assert raced["equal_s"].max() <= without["equal_s"].min()
    assert raced["relative_time"].min() == 1.0
