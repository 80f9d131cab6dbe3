"""The quick suite tells methods apart: recall within and beyond a window's reach, real code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from lcbench import paths, ranking, runner, store

WINDOW = 64
LAYERS = 2
# Each layer reaches W - 1 back, and its short convolution 3 more.
REACH = LAYERS * (WINDOW - 1 + 3)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("results")
    # What was measured here with this very code, such as by `make run`, is not measured again.
    for file in (paths.local_results() / "quick").glob("*.parquet"):
        (folder / "quick").mkdir(exist_ok=True)
        shutil.copy(file, folder / "quick")
    subprocess.run(
        [sys.executable, "-m", "lcbench", "run", "--suite", "quick", "--device", "cpu",
         "--method", "vanilla,sliding-window", "--task", "mqar,code-defs",
         "--results", str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        check=True,
        capture_output=True,
    )  # fmt: skip
    frame = store.read_rows([folder]).frame
    is_ours = (frame["harness_hash"] == runner.harness_hash()) & (frame["context"] == 512)
    return store.latest(frame[is_ours & (frame["seed"] == 0)])


def recall_by_distance(rows: pd.DataFrame, method: str, task: str = "mqar") -> pd.DataFrame:
    curve = ranking.distance_curve(rows)
    return curve[(curve["method"] == method) & (curve["task"] == task)]


def share(points: pd.DataFrame) -> float:
    return float((points["score"] * points["count"]).sum() / points["count"].sum())


def test_vanilla_recalls_at_the_trained_context(rows: pd.DataFrame) -> None:
    scores = ranking.task_scores(rows).set_index(["method", "task"])["score"]
    assert scores["vanilla", "mqar"] >= 0.95


def test_a_window_recalls_within_itself_and_not_beyond_its_reach(rows: pd.DataFrame) -> None:
    window = recall_by_distance(rows, "sliding-window")
    within = window[2 * window["distance_from"] - 1 < WINDOW]
    beyond = window[window["distance_from"] > REACH]
    assert within["count"].sum() > 30
    assert beyond["count"].sum() > 150
    assert share(within) >= 0.85
    assert share(beyond) < 0.2
    everywhere = recall_by_distance(rows, "vanilla")
    assert share(everywhere[everywhere["distance_from"] > REACH]) >= 0.95


def test_definitions_of_real_code_are_recalled_from_beyond_a_window_by_full_attention(
    rows: pd.DataFrame,
) -> None:
    far = {
        method: points[points["distance_from"] > REACH]
        for method in ("vanilla", "sliding-window")
        for points in [recall_by_distance(rows, method, "code-defs")]
    }
    assert far["vanilla"]["count"].sum() > 200
    assert share(far["vanilla"]) >= 0.6
    assert share(far["sliding-window"]) < 0.2
