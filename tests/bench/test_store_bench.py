"""What a board of 100,000 rows costs to read and to rank, whole and for one task.

`python -m tests.bench.app_in_browser` measures the same rows in a real browser.
"""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lcbench import ranking, slices, store

METHODS, TASKS, CONTEXTS, SEEDS, RUNGS = 50, 20, (512, 1024, 2048, 4096), 20, 14
START = pd.Timestamp("2026-01-01", tz="UTC")


def product(**axes: object) -> pd.DataFrame:
    return pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)


def quality() -> pd.DataFrame:
    rows = product(method=range(METHODS), task=range(TASKS), context=CONTEXTS, seed=range(SEEDS))
    buckets = [[0.5] * 12] * len(rows)
    return rows.assign(
        kind="quality",
        metric="accuracy",
        task="task-" + rows["task"].astype(str),
        task_version=1,
        task_config="{}",
        train_context=512,
        dtype="float32",
        score=np.random.default_rng(0).random(len(rows)),
        floor=0.1,
        ceiling=1.0,
        score_se=0.01,
        sweep_learning_rates=[[0.01]] * len(rows),
        sweep_loss_nats=[[1.0]] * len(rows),
        curve_steps=[list(range(10, 330, 10))] * len(rows),
        curve_loss_nats=[[1.0] * 32] * len(rows),
        curve_s=[[1.0] * 32] * len(rows),
        score_by_distance=buckets,
        count_by_distance=[[10] * 12] * len(rows),
        score_by_example=[[0.5] * 64] * len(rows),
        score_by_position=buckets,
        correct_bits=b"\0" * 64,
    )


def costs() -> pd.DataFrame:
    contexts = [2**rung for rung in range(9, 9 + RUNGS)]
    kinds = ("train_step", "prefill", "decode")
    rows = product(method=range(METHODS), kind=kinds, context=contexts, seed=range(10))
    return rows.assign(
        step_ms=rows["context"] * 1e-3,
        vs_vanilla=1.5,
        dtype="float32",
        peak_bytes=rows["context"] * 10,
        vanilla_peak_bytes=rows["context"] * 10,
        state_bytes=rows["context"] * 4,
        timings_ns=[[10**6] * 50] * len(rows),
    )


def write_rows(folder: Path) -> Path:
    """Write the rows to one sealed file."""
    rows = pd.concat([quality(), costs()], ignore_index=True)
    rows = rows.assign(
        schema_version=store.SCHEMA_VERSION,
        run_id="run",
        cell_id=[f"cell-{number}" for number in range(len(rows))],
        suite="bench",
        suite_version=1,
        method=("method-" + rows["method"].astype(str)).replace("method-0", "vanilla"),
        config="{}",
        status="ok",
        device_kind="cpu",
        started_at=START + pd.to_timedelta(np.arange(len(rows)), unit="s"),
    ).reindex(columns=store.SCHEMA.names)
    table = pa.Table.from_pandas(rows, schema=store.SCHEMA, preserve_index=False)
    assert table.num_rows > 100_000
    return store.seal(table, folder, dt.date(2026, 1, 1))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize("columns", [None, ranking.COLUMNS], ids=["all", "ranking"])
def test_read_100k_rows(benchmark, sealed: Path, columns: tuple[str, ...] | None):
    frame, problems = benchmark(store.read_rows, [sealed], columns)
    assert problems == []
    assert len(frame) > 100_000


def test_rank_100k_rows(benchmark, sealed: Path):
    frame = store.read_rows([sealed], ranking.COLUMNS).frame
    board = benchmark(ranking.leaderboard, frame)
    assert len(board) == METHODS
    assert (board["coverage"] == 1).all()
    assert (board["memory"] == 1).all()


def test_rank_one_task_of_100k_rows(benchmark, sealed: Path):
    frame = store.read_rows([sealed], ranking.COLUMNS).frame
    board = benchmark(slices.leaderboard, frame, None, "task-1")
    assert len(board) == METHODS
    assert (board["coverage"] == 1).all()
