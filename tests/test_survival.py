"""Runs that are killed, share a folder or run out of disk: no row is lost, none is there twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest

from lcbench import store

ROOT = Path(__file__).resolve().parents[1]
CRASH = ROOT / "tests" / "crash.py"
SMOKE = ("run", "--suite", "smoke", "--device", "cpu")
SCORES = ["status", "metric", "score", "score_se", "floor", "ceiling", "loss_nats", "num_examples"]
SCORES += ["learning_rate", "train_steps", "train_tokens", "num_params", "correct_bits"]


def crash(case: str, folder: Path) -> dict[str, Any]:
    """What came of the killed runs of a case."""
    done = subprocess.run(
        [sys.executable, str(CRASH), case, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def all_rows(folder: Path) -> pd.DataFrame:
    """Every row in every file, as often as it is there, and nothing half-written."""
    files = sorted(folder.glob("*.parquet"))
    frames = [pq.read_table(file).to_pandas() for file in files]
    left = [path for path in folder.rglob("*") if path.is_file() and path not in files]
    assert {path.name for path in left} <= {".lock"}
    return pd.concat(frames).sort_values(["cell_id", "context"]).reset_index(drop=True)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_rows_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    told = crash("random", tmp_path)
    assert told["killed"] == 100
    assert set(told["codes"]) == {0}
    want = all_rows(tmp_path / "undisturbed" / "tiny")
    names = ["cell_id", "kind", "context"]
    for name in told["folders"]:
        got = all_rows(tmp_path / name / "tiny")
        pd.testing.assert_frame_equal(got[names], want[names])
        is_quality = want["kind"] == "quality"
        assert (got["status"] == want["status"]).all()
        pd.testing.assert_frame_equal(got.loc[is_quality, SCORES], want.loc[is_quality, SCORES])


def test_a_run_killed_between_any_two_steps_of_sealing_leaves_each_row_once(
    tmp_path: Path,
) -> None:
    told = crash("sealing", tmp_path)
    assert len(told["folders"]) > told["cells"]
    for name in told["folders"]:
        rows = all_rows(tmp_path / name / "tiny")
        assert rows["cell_id"].nunique() == told["cells"]
        assert not rows.duplicated(["cell_id", "context"]).any()


def start(arguments: list[str], folder: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "lcbench", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", **environment},
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_until(ready: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_two_runs_share_a_folder_and_each_cell_is_measured_once(
    tmp_path: Path, write_method: Callable[..., Path], own_folder: Path
) -> None:
    go = tmp_path / "go"
    write_method(
        "gated",
        f"while not os.path.exists({str(go)!r}): time.sleep(0.05)\nreturn self.mix(x), None",
    )
    arguments = [*SMOKE, "--method", "gated,vanilla", "--jobs", "1", "--results", "out"]
    environment = {"LCBENCH_PATH": str(own_folder), "TMPDIR": str(tmp_path)}
    folder = tmp_path / "out" / "smoke"
    first = start(arguments, tmp_path, **environment)
    wait_until(lambda: bool(list((folder / "claims").glob("*"))))
    second = start(arguments, tmp_path, **environment)
    # What the second measures while the first stands still.
    wait_until(lambda: bool(list((folder / "cells").glob("*.parquet"))))
    go.touch()
    _, err_1 = first.communicate(timeout=240)
    out_2, err_2 = second.communicate(timeout=240)
    assert (first.returncode, second.returncode) == (0, 0), err_1 + err_2
    assert "Another run is measuring here" in out_2
    assert "sharing its 10 cells" in out_2
    assert "measured by the other run" in out_2
    rows = all_rows(folder)
    assert not rows.duplicated(["cell_id", "context"]).any()
    assert rows["cell_id"].nunique() == 10
    assert rows["run_id"].nunique() == 2
    cost = rows[rows["kind"] != "quality"].sort_values("started_at")
    ends = cost["started_at"] + pd.to_timedelta(cost["wall_s"], unit="s")
    gaps = cost["started_at"].iloc[1:].array - ends.iloc[:-1].array
    assert (gaps > pd.Timedelta(seconds=-0.05)).all(), "two cost cells ran at once"


def test_status_tells_of_a_run_in_progress_and_of_one_interrupted(
    tmp_path: Path, lcbench: Callable[..., Any], write_method: Callable[..., Path], own_folder: Path
) -> None:
    nothing = lcbench("status", "--results", "out")
    assert nothing.returncode == 0
    assert "lcbench run --method all" in nothing.stdout
    write_method("sleeper", "time.sleep(600)")
    arguments = [*SMOKE, "--method", "vanilla,sleeper", "--jobs", "1", "--results", "out"]
    process = start(arguments, tmp_path, LCBENCH_PATH=str(own_folder))
    wait_until(lambda: bool(list((tmp_path / "out" / "smoke" / "cells").glob("*.parquet"))))
    wait_until(lambda: "under way for" in lcbench("status", "--results", "out").stdout)
    shown = lcbench("status", "--results", "out", "--suite", "smoke")
    assert shown.returncode == 0
    assert "in progress: 1 of 10 cells done, 0 of them failed, 1 under way, 8 left" in shown.stdout
    assert "sleeper · mqar · seed 0" in shown.stdout
    assert str(Path("out") / "smoke") in shown.stdout
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "1 of 10 cells are kept" in out
    after = lcbench("status", "--results", "out").stdout
    assert "interrupted: 1 of 10 cells done, 0 of them failed, 0 under way, 9 left" in after
    assert f"go on with it: lcbench {' '.join(arguments)}" in after


def test_a_method_and_what_it_forked_end_with_a_killed_run(
    tmp_path: Path, write_method: Callable[..., Path], own_folder: Path
) -> None:
    noted = tmp_path / "pids"
    write_method(
        "forker",
        f"pid = os.fork()\nif pid == 0:\n    os.setsid()\n    time.sleep(600)\n"
        f"open({str(noted)!r}, 'w').write(f'{{os.getpid()}} {{pid}}\\n')\n"
        "import torch\nwhile True: torch.ones(10)",
    )
    arguments = [*SMOKE, "--method", "forker", "--results", "out"]
    process = start(arguments, tmp_path, LCBENCH_PATH=str(own_folder))
    wait_until(lambda: noted.exists() and noted.read_text().endswith("\n"))
    strays = [psutil.Process(int(pid)) for pid in noted.read_text().split()]
    process.kill()
    process.communicate()
    gone = lambda p: not p.is_running() or p.status() == psutil.STATUS_ZOMBIE  # noqa: E731
    wait_until(lambda: all(map(gone, strays)), 20)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if shutil.which("mount") is None or mounted.returncode:
        pytest.skip("mounting a file system takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_run_completed_when_there_is_room(
    small_disk: Path, lcbench: Callable[..., Any]
) -> None:
    arguments = [*SMOKE, "--method", "vanilla", "--results", str(small_disk)]
    (small_disk / "ballast").write_bytes(b"x" * 200_000)
    full = lcbench(*arguments)
    assert full.returncode == 1, full.stdout
    assert "Traceback" not in full.stderr
    told = " ".join(full.stderr.split())
    assert "No space left on device" in told
    assert "make room and run the same command again" in told
    kept = store.read_rows([small_disk])
    assert kept.problems == []
    (small_disk / "ballast").unlink()
    done = lcbench(*arguments)
    assert done.returncode == 0, done.stderr
    rows = all_rows(small_disk / "smoke")
    assert rows["cell_id"].nunique() == 5
    assert set(kept.frame["run_id"]) <= set(rows["run_id"])
    assert not rows.duplicated(["cell_id", "context"]).any()
