"""Boards of a suite count by what the suite asks, whatever else somebody tried."""

import datetime
from pathlib import Path

import pandas as pd
import pytest

from lcbench import ranking, registry, store
from lcbench.plans import suite_plan, tried_plan

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def rows_of(method: str, overrides: dict[str, str], score: float, seed: int = 0) -> list[store.Row]:
    plan = next(p for p in registry.load_suite("quick").tasks if p.task == "mqar")
    config = registry.load_task("mqar").config().override(plan.config).override(overrides)
    return [
        {
            "run_id": "r", "cell_id": f"{method}{overrides}{seed}", "kind": "quality",
            "suite": "quick", "suite_version": 1, "task": "mqar", "task_version": 1,
            "task_config": config.canonical(), "method": method, "config": "{}",
            "train_context": plan.train_context, "context": context, "seed": seed,
            "dtype": "float32", "status": "ok", "metric": "accuracy", "score": score,
            "floor": 0.0, "ceiling": 1.0, "started_at": NOW, "device_kind": "cpu",
        }
        for context in plan.contexts
    ]  # fmt: skip


def quality(*rows: list[store.Row]) -> dict[str, float]:
    frame = store.to_table([row for group in rows for row in group]).to_pandas()
    board = ranking.leaderboard(frame, suite_plan(frame))
    return board.set_index("method")["quality"].to_dict()


def share_of_mqar() -> float:
    """What one task counts: as much as the others of its family, which counts as others do."""
    tasks = [plan.task for plan in registry.load_suite("quick").tasks]
    families = [registry.load_task(task).family for task in tasks]
    return 1 / len(set(families)) / families.count(registry.load_task("mqar").family)


def test_a_rivals_variant_of_a_task_changes_nobodys_quality() -> None:
    own = rows_of("vanilla", {}, 0.8)
    alone = quality(own)
    beside = quality(own, rows_of("rival", {}, 0.5), rows_of("rival", {"num_pairs": "4"}, 1.0))
    assert beside["vanilla"] == pytest.approx(alone["vanilla"])
    # The suite's other tasks were not tried, and count as missing.
    assert alone["vanilla"] == pytest.approx(0.8 * share_of_mqar())


def test_more_seeds_than_the_suites_count_too() -> None:
    assert quality(rows_of("vanilla", {}, 0.8), rows_of("vanilla", {}, 0.4, seed=7)) == {
        "vanilla": pytest.approx(0.6 * share_of_mqar())
    }


def test_a_run_of_variants_alone_is_ranked_by_what_it_tried() -> None:
    assert quality(rows_of("vanilla", {"num_pairs": "4"}, 0.8)) == {"vanilla": pytest.approx(0.8)}


def test_without_quality_rows_there_is_no_plan() -> None:
    assert suite_plan(pd.DataFrame(columns=["kind", *ranking.PLAN])) is None


def test_a_run_of_a_whole_suite_is_ranked_as_the_leaderboard_ranks_it() -> None:
    rows: list[store.Row] = []
    for number, plan in enumerate(registry.load_suite("quick").tasks):
        config = registry.load_task(plan.task).config().override(plan.config).canonical()
        shared = {"task": plan.task, "task_config": config, "score": number / 4}
        rows += [row | shared for row in rows_of("vanilla", {}, 0.0)]
    frame = store.to_table(rows).to_pandas()
    whole, run = (ranking.leaderboard(frame, plan(frame)) for plan in (suite_plan, tried_plan))
    assert run["quality"].tolist() == pytest.approx(whole["quality"].tolist())


def test_a_task_whose_file_is_torn_counts_as_a_family_of_its_own(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / "suites" / "tasks" / "torn.py").write_text("def broken(:", encoding="utf-8")
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))
    rows = [{**row, "task": "torn", "suite": "mine"} for row in rows_of("vanilla", {}, 0.5)]
    assert quality(rows) == {"vanilla": 0.5}
