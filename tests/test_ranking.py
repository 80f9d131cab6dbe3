import datetime as dt
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcbench import ranking, store
from lcbench.ranking import (
    comparable,
    distance_curve,
    effective_contexts,
    fit_exponents,
    leaderboard,
    normalised,
    task_scores,
)
from lcbench.store import Row

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def row(**columns: object) -> Row:
    return {
        "run_id": "run",
        "cell_id": "cell",
        "suite": "quick",
        "suite_version": 1,
        "method": "vanilla",
        "config": "{}",
        "status": "ok",
        "started_at": START,
        "device_kind": "cpu",
        **columns,
    }


def score(value: float | None, **columns: object) -> Row:
    """A quality row of a task whose normalised score is the score."""
    task: Row = {"task": "mqar", "task_version": 1, "task_config": "{}", "train_context": 64}
    measured: Row = {"score": value, "floor": 0.0, "ceiling": 1.0, "metric": "accuracy"}
    return row(**{"kind": "quality", "context": 64, "seed": 0, **task, **measured, **columns})


def cost(kind: str, context: int, **columns: object) -> Row:
    return row(**{"kind": kind, "context": context, "batch": 1, **columns})


def frame(*rows: Row) -> pd.DataFrame:
    return store.to_table(rows).to_pandas()


def board(*rows: Row) -> pd.DataFrame:
    return leaderboard(frame(*rows)).set_index("method")


def test_normalised_puts_the_floor_at_0_and_the_ceiling_at_1():
    rows = frame(
        score(0.55, floor=0.1, ceiling=1.0),
        score(2.0, floor=4.0, ceiling=1.5, metric="bits_per_byte"),
        score(0.05, floor=0.1),
        score(1.2),
        score(0.9, status="invalid"),
        score(None),
        score(0.5, floor=1.0, ceiling=1.0),
        cost("prefill", 512),
    )
    expected = [0.5, 0.8, 0, 1, 0, 0, 0, math.nan]
    np.testing.assert_allclose(normalised(rows), expected)


def test_quality_is_the_mean_of_lengths_of_families_of_tasks_of_seeds():
    rows = [
        score(1.0, seed=0),
        score(0.5, seed=1),
        score(0.25, context=128),
        score(0.0, task="copy"),
        score(0.6, task="code"),
    ]
    assert board(*rows).loc["vanilla", "quality"] == pytest.approx(
        ((0.75 + 0 + 0.6) / 3 + 0.25) / 2
    )
    families = {"mqar": "recall", "copy": "recall"}
    plan = frame(*rows)
    plan["family"] = plan["task"].map(families)
    got = leaderboard(frame(*rows), plan).iloc[0]
    assert got["quality"] == pytest.approx((((0.75 + 0) / 2 + 0.6) / 2 + 0.25) / 2)
    # Seed 1, which was tried at all, is missing at three places of the four.
    assert got["coverage"] == 5 / 8
    curve = ranking.length_curve(frame(*rows), plan).set_index("length")["quality"]
    assert curve.to_dict() == pytest.approx({64: 0.4875, 128: 0.25})


def test_contexts_of_one_octave_are_one_length():
    rows = [score(1.0, context=c) for c in (64, 96, 127)] + [score(0.0, context=128)]
    assert board(*rows).loc["vanilla", "quality"] == 0.5


def test_variants_of_a_task_share_its_one_vote():
    rows = [
        score(1.0, task_config='{"pairs":8}'),
        score(0.0, task_config='{"pairs":64}'),
        score(0.2, train_context=128, context=128),
        score(1.0, task="copy"),
    ]
    assert board(*rows).loc["vanilla", "quality"] == pytest.approx(((0.5 + 1.0) / 2 + 0.2) / 2)


def test_what_failed_and_what_is_missing_count_0_and_a_seed_not_tried_counts_in_coverage():
    rows = [
        *(score(0.8, seed=seed, context=context) for seed in (0, 1) for context in (64, 128)),
        score(0.8, method="fails"),
        score(None, method="fails", context=128, status="oom"),
        score(0.8, method="lacks"),
        score(0.8, method="fails", seed=1),
        row(kind="prefill", context=512, method="timed", status="timeout"),
    ]
    got = board(*rows)
    assert got["quality"].to_dict() == pytest.approx(
        {"vanilla": 0.8, "fails": 0.4, "lacks": 0.4, "timed": 0.0}
    )
    # Vanilla's second seed is no hole in a method that was tried in one.
    assert got["coverage"].to_dict() == {"vanilla": 1.0, "fails": 0.5, "lacks": 0.5, "timed": 0.0}
    assert got.loc["fails", ["ok", "oom", "failed"]].tolist() == [2, 1, 1]
    assert got.loc["timed", ["ok", "timeout", "failed"]].tolist() == [0, 1, 1]


def test_a_given_plan_says_what_counts():
    rows = [score(1.0), score(0.9, context=1024), score(1.0, task="stray")]
    plan = frame(score(None), score(None, context=128), score(None, task="copy"))
    for columns in (ranking.PLAN, [*ranking.PLAN, "device_kind"]):
        got = leaderboard(frame(*rows), plan[columns]).iloc[0]
        assert got["quality"] == pytest.approx((1.0 + 0.0) / 2 / 2)
        assert got["coverage"] == pytest.approx(1 / 3)
        assert math.isnan(got["effective_context"])


def test_the_interval_is_of_seeds_and_absent_with_one():
    one = board(score(0.5)).loc["vanilla"]
    assert math.isnan(one["quality_low"])
    assert math.isnan(one["quality_high"])
    same = board(score(0.5, seed=0), score(0.5, seed=1)).loc["vanilla"]
    assert (same["quality_low"], same["quality_high"]) == (0.5, 0.5)
    mixed = board(score(0.5, seed=0), score(0.5, seed=1), score(0.5, task="copy")).loc["vanilla"]
    assert math.isnan(mixed["quality_low"])


def test_the_interval_of_the_bootstrap_is_that_of_the_mean():
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(0.5, 0.1, 400), 0, 1)
    got = board(*(score(float(v), seed=i) for i, v in enumerate(values))).loc["vanilla"]
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert got["quality_low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert got["quality_high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_tasks_are_drawn_apart_and_the_draws_repeat():
    rows = [score(float(s), seed=s, task=task) for s in (0, 1) for task in ("a", "b", "c", "d")]
    first, again = board(*rows), board(*rows)
    pd.testing.assert_frame_equal(first, again)
    # Eight fair coins: one head or none in 9 draws of 256. Tasks drawn together would give 0 and 1.
    bounds = first.loc["vanilla", ["quality_low", "quality", "quality_high"]]
    assert bounds.tolist() == [0.125, 0.5, 0.875]


def test_a_wider_claim_gives_a_wider_interval():
    def rows(of_copy: float) -> list[Row]:
        return [
            score(value, seed=seed, task=task, score_se=0.01)
            for task, value in (("mqar", 0.9), ("copy", of_copy), ("code", 0.1))
            for seed in range(4)
        ]

    plan = frame(*rows(0.5))
    plan["family"] = plan["task"].map({"mqar": "recall", "copy": "recall", "code": "text"})

    def width(of_copy: float, *levels: str) -> float:
        [got] = ranking.intervals(frame(*rows(of_copy)), plan, levels).to_dict("records")
        assert got["quality"] == pytest.approx(((0.9 + of_copy) / 2 + 0.1) / 2)
        assert got["low"] - 1e-12 <= got["quality"] <= got["high"] + 1e-12
        return got["high"] - got["low"]

    assert width(0.5, "seed") == 0.0
    # Weights 1/4, 1/4 and 1/2, four seeds each: the error of the mean is 0.01 sqrt(3/8) / 2.
    assert width(0.5, "examples") == pytest.approx(2 * 1.96 * 0.01 * math.sqrt(3 / 8) / 2, rel=0.1)
    # Of the four draws of two tasks one in four is mqar twice, and one is copy twice.
    assert width(0.5, "task") == pytest.approx(0.2)
    assert width(0.9, "task") == pytest.approx(0.0)
    # A family drawn twice stands alone.
    assert width(0.5, "family") == pytest.approx(0.7 - 0.1)
    assert width(0.5, *ranking.LEVELS) > 0.6
    with pytest.raises(ValueError, match="levels are of family, task, seed, examples, got tasks"):
        ranking.intervals(plan, levels=["tasks"])


def test_places_are_shared_by_those_that_cannot_be_told_apart():
    rows = [
        score(value + 0.02 * seed, method=method, task=task, seed=seed)
        for method, value in (("best", 0.8), ("b1", 0.5), ("b2", 0.51), ("worst", 0.1))
        for task, seed in ((task, seed) for task in ("mqar", "copy", "code") for seed in range(3))
        if not (method == "b2" and task == "mqar" and seed == 0)
    ]
    # b2 is ahead on two tasks and far behind on the third.
    rows += [score(0.1, method="b2", task="mqar", seed=0)]
    got = board(*rows)
    found = {name: tuple(got.loc[name, ["place_first", "place_last"]]) for name in got.index}
    assert found == {"best": (1, 1), "b1": (2, 3), "b2": (2, 3), "worst": (4, 4)}


def test_one_seed_tells_nobody_apart():
    got = board(*(score(s, method=m) for m, s in (("vanilla", 1.0), ("window", 0.0))))
    assert got["place_first"].tolist() == [1, 1]
    assert got["place_last"].tolist() == [2, 2]


def test_seeds_that_miss_a_context_leave_the_interval_around_quality():
    rows = [score(0.4, seed=s, context=c) for s in (0, 1) for c in (64, 128)]
    got = board(*rows[:-1]).loc["vanilla"]
    assert got[["quality_low", "quality", "quality_high"]].tolist() == pytest.approx([0.4] * 3)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({64: 0.8, 128: 0.7, 256: 0.69, 512: 0.6}, 256),
        ({64: 0.8, 128: 0.5, 256: 0.8}, 64),
        ({64: 0.8, 128: None, 256: 0.8}, 64),
        ({64: 0.02, 128: 0.9}, 0),
        ({64: None, 128: 0.9}, 0),
        ({128: 0.9}, math.nan),
        ({32: 0.1, 64: 0.8}, 64),
    ],
)
def test_effective_context_goes_up_from_the_trained_one_without_gaps(scores, expected):
    rows = [
        score(value, context=context, score_se=0.02, status="oom" if value is None else "ok")
        for context, value in scores.items()
    ]
    plan = frame(*(score(1.0, context=c) for c in (32, 64, 128, 256, 512)))
    [got] = effective_contexts(frame(*rows), plan)["effective_context"]
    assert got == expected or (math.isnan(got) and math.isnan(expected))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({64: 0.8, 128: 0.6, 256: 0.5, 512: 0.49}, 256),
        ({64: 0.6, 128: 0.4, 256: 0.9}, 64),
        ({64: 0.4, 128: 0.9}, 0),
        ({64: None, 128: 0.9}, 0),
        ({128: 0.9}, math.nan),
    ],
)
def test_passing_context_is_held_to_a_bar_that_is_the_same_for_all(scores, expected):
    rows = [
        score(value, context=context, status="oom" if value is None else "ok")
        for context, value in scores.items()
    ]
    plan = frame(*(score(1.0, context=c) for c in (64, 128, 256, 512)))
    found = effective_contexts(frame(*rows), plan)
    np.testing.assert_equal(found["passing_context"].tolist(), [expected])
    strict = effective_contexts(frame(*rows), plan, bar=0.85)["passing_context"]
    assert not (strict > 0).any()


def test_the_boards_passing_context_is_of_the_mean_over_tasks():
    rows = [score(0.9), score(0.2, task="copy")]
    rows += [score(0.6, context=128), score(0.2, context=128, task="copy")]
    assert board(*rows).loc["vanilla", "passing_context"] == 64
    assert board(*rows, score(1.0, context=32)).loc["vanilla", "passing_context"] == 64
    assert board(*rows, score(0.1, context=32)).loc["vanilla", "passing_context"] == 0


def test_effective_context_needs_seeds_that_agree():
    agree = [score(0.5, seed=s) for s in range(3)]
    differ = [score(float(s == 0), seed=s) for s in range(3)]
    assert effective_contexts(frame(*agree))["effective_context"].tolist() == [64]
    assert effective_contexts(frame(*differ))["effective_context"].tolist() == [0]


def test_the_boards_effective_context_is_the_smallest_of_its_tasks():
    rows = [score(1.0), score(1.0, context=128), score(1.0, task="copy")]
    assert board(*rows).loc["vanilla", "effective_context"] == 64
    untried = board(*rows, *(score(1.0, method="other", context=c) for c in (64, 128)))
    assert untried.loc["vanilla", "effective_context"] == 64
    assert math.isnan(untried.loc["other", "effective_context"])


def test_task_scores_are_means_with_their_errors():
    rows = [
        score(0.6, floor=0.2, seed=0, score_se=0.008),
        score(1.0, floor=0.2, seed=1, score_se=0.008),
        score(None, seed=2, status="crashed"),
        score(0.6, context=128, floor=0.2, score_se=0.08),
    ]
    several, one = task_scores(frame(*rows)).to_dict("records")
    assert several["score"] == pytest.approx(0.8)
    assert several["normalised"] == pytest.approx(0.5)
    assert several["se"] == pytest.approx(0.5 / math.sqrt(3))
    assert (several["num_seeds"], several["metric"]) == (3, "accuracy")
    assert several["solved"] == pytest.approx(1 / 3)
    assert (several["worst"], several["median"], several["best"]) == pytest.approx((0, 0.5, 1))
    assert (several["low"], several["high"]) == (0.0, 1.0)
    assert one["se"] == pytest.approx(0.1)
    assert (one["low"], one["high"]) == pytest.approx((0.304, 0.696))
    assert (one["train_context"], one["context"], one["floor"]) == (64, 128, 0.2)


def test_distance_buckets_are_pooled_by_their_counts():
    rows = [
        score(0.5, seed=0, score_by_distance=[None, 1.0, 0.5], count_by_distance=[0, 3, 2]),
        score(0.5, seed=1, score_by_distance=[None, 0.0], count_by_distance=[0, 1]),
        score(None, seed=2, status="oom"),
    ]
    curve = distance_curve(frame(*rows))
    pooled = curve[["distance_from", "score", "count"]].to_numpy()
    assert pooled.tolist() == [[2, 0.75, 4], [4, 0.5, 2]]
    assert distance_curve(frame(rows[2])).empty


def test_context_gain_is_what_the_first_bytes_cost_more_than_the_last_half():
    bits = {"metric": "bits_per_byte", "floor": 5.0, "ceiling": 0.0}
    first = [4.0] * 7 + [3.0]
    rows = [
        score(2.0, context=1024, score_by_position=[*first, 2.5, 2.0], **bits),
        score(2.0, context=1024, seed=1, score_by_position=[*first, 2.5, 1.0], **bits),
        score(2.0, context=256, score_by_position=first, **bits),
        score(0.9, context=2048, score_by_position=[0.5] * 11),
        score(None, context=2048, status="oom", **bits),
    ]
    [got] = ranking.context_gains(frame(*rows)).to_dict("records")
    assert (got["context"], got["first"], got["last"], got["gain"]) == (1024, 3.5, 1.5, 2.0)
    assert ranking.context_gains(frame(*rows[2:])).empty


def test_what_models_wrote_is_pooled_by_passages():
    def wrote(exact: float, chrf: float | None, count: int, seed: int) -> Row:
        named = {"generated_exact_match": exact, "generated_chrf": chrf, "num_generated": count}
        return score(0.5, seed=seed, **named)

    rows = [wrote(0.5, 40.0, 30, 0), wrote(0.0, 60.0, 10, 1), wrote(1.0, None, 20, 2)]
    [got] = ranking.generated_scores(frame(*rows, score(0.9, context=128))).to_dict("records")
    assert (got["context"], got["num_generated"], got["generated_chrf"]) == (64, 60, 50.0)
    assert got["generated_exact_match"] == pytest.approx(35 / 60)
    [without] = ranking.generated_scores(frame(rows[2])).to_dict("records")
    assert math.isnan(without["generated_chrf"])
    assert ranking.generated_scores(frame(score(0.9))).empty


def test_exponents_are_slopes_of_the_long_rungs_or_the_last_three():
    def times(kind: str, contexts: list[int], exponent: float, bend: int = 0) -> list[Row]:
        return [cost(kind, c, step_ms=100.0 if c < bend else c**exponent) for c in contexts]

    rows = [
        *times("train_step", [512, 1024, 2048, 4096, 8192], 2.0, bend=2048),
        *times("prefill", [128, 256, 512, 1024, 2048], 1.5, bend=512),
        *times("decode", [2048], 1.0),
        cost("prefill", 4096, status="oom"),
    ]
    got = fit_exponents(frame(*rows)).set_index("kind")
    assert got.loc["train_step", ["exponent", "num_rungs"]].tolist() == pytest.approx([2.0, 3])
    assert got.loc["prefill", ["exponent", "num_rungs"]].tolist() == pytest.approx([1.5, 3])
    assert math.isnan(got.loc["decode", "exponent"])
    shown = board(*rows).loc["vanilla"]
    assert shown[["train_exponent", "prefill_exponent"]].tolist() == pytest.approx([2.0, 1.5])


def test_exponents_are_per_sequence_and_of_any_cost():
    halving = [
        cost("prefill", c, step_ms=1.0, batch=8192 // c, peak_bytes=c * c) for c in (2048, 4096)
    ]
    assert fit_exponents(frame(*halving))["exponent"].tolist() == pytest.approx([1.0])
    of_memory = fit_exponents(frame(*halving), "peak_bytes")["exponent"].tolist()
    assert of_memory == pytest.approx([3.0])


def test_speed_and_memory_are_read_where_every_method_finished():
    rows = [
        *(
            cost(
                "train_step",
                c,
                vs_vanilla=1.0,
                peak_bytes=c * 100,
                num_params=9,
                vanilla_peak_bytes=c * 100,
            )
            for c in (512, 1024, 2048)
        ),
        *(
            cost(
                "train_step",
                c,
                vs_vanilla=c / 512,
                peak_bytes=c * 50,
                method="fast",
                vanilla_peak_bytes=c * 100,
            )
            for c in (512, 1024)
        ),
        cost("train_step", 2048, method="fast", status="oom"),
        cost("decode", 1024, state_bytes=4096, vs_vanilla=1.0),
        cost("decode", 1024, method="fast", status="unsupported"),
        cost("train_step", 512, method="broken", status="crashed"),
    ]
    got = board(*rows)
    fast, vanilla, broken = (got.loc[name] for name in ("fast", "vanilla", "broken"))
    assert (fast["train_speed"], fast["train_speed_context"]) == (2.0, 1024)
    assert (fast["memory"], vanilla["memory"]) == (0.5, 1.0)
    assert (vanilla["state_bytes_per_token"], vanilla["decode_speed_context"]) == (4.0, 1024)
    assert math.isnan(fast["decode_speed"])
    assert math.isnan(broken["train_speed"])
    assert (fast["failed"], fast["unsupported"]) == (1, 1)
    assert vanilla["num_params"] == 9
    assert math.isnan(vanilla["quality"])


def test_parameters_are_those_of_what_was_trained():
    rows = [score(1.0, num_params=5), score(1.0, task="copy", num_params=7)]
    assert board(*rows, cost("prefill", 512, num_params=99)).loc["vanilla", "num_params"] == 7


def test_the_board_is_sorted_by_layer_then_quality():
    def method(name: str, quality: float, speed: float) -> list[Row]:
        return [
            score(quality, method=name),
            cost("prefill", 512, method=name, vs_vanilla=speed),
        ]

    rows = [*method("c", 0.5, 2.0), *method("b", 0.4, 1.0), *method("vanilla", 0.9, 1.0)]
    got = board(*rows)
    assert list(got.index) == ["vanilla", "c", "b"]
    assert got["pareto"].tolist() == [1, 1, 2]


def test_devices_and_suites_have_boards_of_their_own():
    rows = [
        score(1.0),
        score(0.5, device_kind="cuda"),
        score(0.2, suite="long"),
        score(0.1, suite="long", task="copy"),
    ]
    got = leaderboard(frame(*rows)).set_index(["suite", "device_kind"])
    assert got["quality"].to_dict() == pytest.approx(
        {("quick", "cpu"): 1.0, ("quick", "cuda"): 0.5, ("long", "cpu"): 0.15}
    )
    assert got["coverage"].tolist() == [1.0] * 3


def later(hours: int = 1) -> dt.datetime:
    return START + dt.timedelta(hours=hours)


def test_a_suite_is_a_draft_until_its_first_version_was_measured() -> None:
    rows = pd.DataFrame({"suite": ["a", "a", "b", "c"], "suite_version": [0, 1, 0, 2]})
    assert ranking.drafts(rows) == {"b"}


@pytest.mark.parametrize(
    ("reason", "old", "new"),
    [
        ("suite_version", {"started_at": later()}, {"suite_version": 2}),
        ("task_version", {"started_at": later()}, {"task_version": 2}),
        ("task_hash", {"task_hash": "z"}, {"task_hash": "a", "started_at": later()}),
        ("data_hash", {"data_hash": "z"}, {"data_hash": "a", "started_at": later()}),
        ("method_hash", {"method_hash": "z"}, {"method_hash": "a", "started_at": later()}),
        ("repeated", {"cell_id": "old"}, {"cell_id": "new", "started_at": later()}),
        ("incomplete", {"task_version": 1}, {}),
    ],
)
def test_rows_that_cannot_stand_side_by_side_are_put_aside(reason, old, new):
    rows = frame(score(0.1, **old), score(0.9, **new), score(0.5, seed=1, **new))
    if reason == "incomplete":
        rows.loc[0, "task_version"] = None
    kept, put_aside = comparable(rows)
    assert kept["score"].tolist() == [0.9, 0.5]
    assert {name: number for name, number in put_aside.items() if number} == {reason: 1}
    again = comparable(kept)
    assert sum(again.put_aside.values()) == 0
    assert ranking.tell_put_aside(put_aside).startswith("1 row put aside: 1 ")
    assert ranking.tell_put_aside(again.put_aside) == ""


def test_hashes_are_compared_within_a_task_and_a_failure_without_one_is_kept():
    rows = frame(
        score(0.1, task_hash="a"),
        score(0.1, task="copy", task_hash="b", started_at=later()),
        score(0.1, task_config='{"pairs":8}', data_hash="c"),
        score(0.1, device_kind="cuda", task_hash="old", started_at=later(-1)),
        score(None, status="timeout", seed=1),
    )
    assert len(comparable(rows).frame) == 5


def test_no_rows_give_empty_frames_with_their_columns():
    nothing = store.SCHEMA.empty_table().to_pandas()
    assert list(leaderboard(nothing).columns) == [c.name for c in ranking.board_columns()]
    assert leaderboard(nothing).empty
    assert task_scores(nothing).empty
    assert effective_contexts(nothing).empty
    assert fit_exponents(nothing).empty
    assert distance_curve(nothing).empty


def test_only_the_listed_columns_are_needed(tmp_path: Path):
    rows = [
        score(0.5, score_by_distance=[0.5], count_by_distance=[2]),
        cost("prefill", 512, step_ms=1.0, vs_vanilla=1.0),
    ]
    store.write_rows(tmp_path / "a.parquet", rows)
    read = store.read_rows([tmp_path], ranking.COLUMNS).frame
    everything = store.read_rows([tmp_path]).frame
    pd.testing.assert_frame_equal(leaderboard(read), leaderboard(everything))
    pd.testing.assert_frame_equal(leaderboard(read), leaderboard(frame(*rows)))
    assert len(task_scores(read)) == len(fit_exponents(read)) == len(effective_contexts(read)) == 1
    read = store.read_rows([tmp_path], [*ranking.COLUMNS, *ranking.DISTANCE_COLUMNS]).frame
    assert distance_curve(read)["distance_from"].tolist() == [1]


OWN = ["quality", "quality_low", "quality_high", "coverage", "effective_context"]
OWN += ["passing_context"]
OWN += ["train_exponent", "prefill_exponent", "decode_exponent", "num_params", "ok", "failed"]

scores = st.one_of(st.none(), st.floats(0, 1))
places = st.tuples(
    st.sampled_from(["mqar", "copy"]), st.sampled_from([64, 128, 256]), st.integers(0, 2)
)
one_method = st.tuples(
    st.dictionaries(places, scores, min_size=1),
    st.dictionaries(st.sampled_from([512, 1024, 2048, 4096]), st.floats(0.1, 100)),
)


def rows_of(method: str, measured: tuple[dict, dict]) -> list[Row]:
    quality, times = measured
    return [
        *(
            score(
                value,
                method=method,
                task=task,
                context=context,
                seed=seed,
                score_se=0.02,
                status="error" if value is None else "ok",
            )
            for (task, context, seed), value in quality.items()
        ),
        *(cost("prefill", c, method=method, step_ms=ms) for c, ms in times.items()),
    ]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(one_method, min_size=2, max_size=3), st.randoms())
def test_rivals_and_filters_never_change_a_methods_own_numbers(methods, random):
    names = ["vanilla", "window", "recurrence"][: len(methods)]
    rows = [row for name, each in zip(names, methods, strict=True) for row in rows_of(name, each)]
    plan = task_scores(frame(*rows)).merge(pd.DataFrame({"seed": [0, 1, 2]}), how="cross")
    plan["family"] = plan["task"].map({"mqar": "recall"})
    elsewhere = [
        {**row, **place} for row in rows for place in ({"suite": "a"}, {"device_kind": "a"})
    ]
    shuffled = rows + elsewhere
    random.shuffle(shuffled)
    everything = leaderboard(frame(*shuffled), pd.concat([plan, plan.assign(suite="a")]))
    here = (everything["suite"] == "quick") & (everything["device_kind"] == "cpu")
    together = everything[here].set_index("method")[OWN]
    for name in names:
        alone = leaderboard(frame(*(r for r in rows if r["method"] == name)), plan)
        pd.testing.assert_frame_equal(
            alone.set_index("method")[OWN], together.loc[[name]], check_exact=True
        )


PEAKS: Row = {"matmul_flops_per_s": 1e9, "copy_bytes_per_s": 1e8}


def test_the_roofline_share_is_the_longer_of_computing_and_moving_over_the_time():
    rows = frame(
        cost("prefill", 512, step_ms=1000.0, flops=500_000_000, touched_bytes=100, **PEAKS),
        cost("decode", 512, step_ms=1000.0, flops=100, touched_bytes=25_000_000, **PEAKS),
        cost("train_step", 512, step_ms=1000.0, flops=100, touched_bytes=100),
        cost("prefill", 1024, step_ms=1000.0, **PEAKS),
    )
    np.testing.assert_allclose(ranking.roofline_share(rows), [0.5, 0.25, math.nan, math.nan])


def test_the_board_shows_the_roofline_share_at_the_context_of_the_speed():
    one: Row = {"vs_vanilla": 1.0, "touched_bytes": 0, **PEAKS}
    got = board(
        cost("prefill", 512, step_ms=100.0, flops=10**7, **one),
        cost("prefill", 1024, step_ms=100.0, flops=4 * 10**7, **one),
        cost("prefill", 512, step_ms=100.0, flops=2 * 10**7, method="a", **one),
    )
    assert got.loc["vanilla", "prefill_roofline"] == pytest.approx(0.1)
    assert got.loc["a", "prefill_roofline"] == pytest.approx(0.2)
    assert math.isnan(got.loc["a", "decode_roofline"])
