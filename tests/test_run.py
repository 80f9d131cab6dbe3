"""`lcbench run`, end to end: the smoke suite through the CLI into Parquet and back."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from lcbench import machine, registry, runner, store
from lcbench.cli import main

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ("run", "--suite", "smoke", "--device", "cpu")


def rows_in(folder: Path) -> pd.DataFrame:
    read = store.read_rows([folder])
    assert read.problems == []
    return read.frame


def test_all_methods_run_through_to_a_leaderboard(lcbench: Callable, tmp_path: Path) -> None:
    done = lcbench(*SMOKE, "--method", "all", "--results", "out")
    assert done.returncode == 0, done.stderr
    frame = rows_in(tmp_path / "out")
    methods = set(registry.method_names())
    assert set(frame["method"]) == methods
    assert set(frame["status"]) == {"ok"}
    assert set(frame["kind"]) == {"quality", "train_step", "prefill", "decode"}
    cost = frame[frame["kind"] != "quality"]
    assert (cost["tokens_per_s"] > 0).all()
    assert (cost["peak_bytes"] > 0).all()
    assert (cost.loc[cost["method"] == "vanilla", "vs_vanilla"] == 1).all()
    assert cost["vs_vanilla"].notna().all()
    quality = frame[frame["kind"] == "quality"]
    assert quality[["score", "floor", "ceiling", "loss_nats"]].notna().all(axis=None)
    assert len(set(quality.loc[quality["task"] == "code-lm", "data_hash"])) == 1
    told = frame.to_csv()
    assert str(tmp_path) not in told
    assert "/home/" not in told
    for method in methods:
        assert method in done.stdout
    assert "floor: a trivial solver" in done.stdout
    assert "lcbench app" in done.stdout

    board = lcbench("leaderboard", "--results", "out", "--format", "json")
    assert {row["method"] for row in json.loads(board.stdout)} == methods
    markdown = lcbench("leaderboard", "--results", "out", "--format", "markdown")
    assert markdown.stdout.startswith("| Suite |")
    csv = lcbench("leaderboard", "--results", "out", "--format", "csv")
    assert len(csv.stdout.splitlines()) == len(methods) + 1


def test_the_same_seed_gives_the_same_bits_whatever_runs_beside_it(
    lcbench: Callable, tmp_path: Path
) -> None:
    for jobs in ("1", "2"):
        done = lcbench(*SMOKE, "--method", "vanilla,sliding-window", "--task", "all", "--jobs",
                       jobs, "--results", jobs)  # fmt: skip
        assert done.returncode == 0, done.stderr
    names = ["method", "task", "context", "score", "loss_nats", "correct_bits"]
    one, two = (
        rows_in(tmp_path / jobs).query("kind == 'quality'")[names].sort_values(names[:3])
        for jobs in ("1", "2")
    )
    pd.testing.assert_frame_equal(one.reset_index(drop=True), two.reset_index(drop=True))


def test_a_killed_run_is_completed_by_running_it_again(lcbench: Callable, tmp_path: Path) -> None:
    arguments = [*SMOKE, "--method", "vanilla,recurrence", "--jobs", "1", "--results", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lcbench", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    cells = tmp_path / "out" / "smoke" / "cells"
    deadline = time.monotonic() + 120
    while len(list(cells.glob("*.parquet"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = rows_in(tmp_path / "out")
    assert kept["cell_id"].nunique() >= 2
    again = lcbench(*arguments)
    assert again.returncode == 0, again.stderr
    assert "already measured" in again.stdout
    frame = rows_in(tmp_path / "out")
    assert not frame.duplicated(["cell_id", "context"]).any()
    first = frame.set_index(["cell_id", "context"])["run_id"]
    assert (first.loc[kept.set_index(["cell_id", "context"]).index] == kept["run_id"].iloc[0]).all()
    third = lcbench(*arguments)
    assert "Nothing to measure" in third.stdout


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lcbench", *SMOKE, "--method", "all", "--results", "out"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background of a shell, Ctrl-C is ignored: not here.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    cells = tmp_path / "out" / "smoke" / "cells"
    deadline = time.monotonic() + 120
    while not list(cells.glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "are kept in" in out
    assert "Run the same command again" in out
    assert "Traceback" not in out + err


LEAK = "while True: self.held = (torch.ones(2**22), getattr(self, 'held', None))"
FORK = "if os.fork() == 0: os.setsid(); time.sleep(600)"
SHOUT = "print('x' * 3_000_000); os.write(2, b'y' * 1_000_000)"
CHANGE = "torch.set_default_dtype(torch.float64); torch.set_num_threads(7); torch.manual_seed(7)"
MIX = "return self.mix(x), None"
BAD_METHODS = {
    "raises": ("raise RuntimeError('no luck')", "error", None),
    "wrong-shape": ("return x[:, :-1], None", "invalid", None),
    "not-a-pair": ("return x", "invalid", None),
    "words": ("return 'garbage', 'words'", "invalid", None),
    "nan": ("return self.mix(x) * float('nan'), None", "invalid", None),
    "aborts": ("os.abort()", "crashed", "SIGABRT"),
    "leaves": ("os._exit(0)", "crashed", None),
    "hangs": ("time.sleep(600)", "timeout", "SIGKILL"),
    "leaks": (LEAK, "oom", "SIGKILL"),
    "forks": (f"{FORK}\n{MIX}", "ok", None),
    "shouts": (f"{SHOUT}\n{MIX}", "ok", None),
    "changes": (f"{CHANGE}\n{MIX}", None, None),
}
"""What `forward` does, the status it must get (any, if none is named), and the exit signal."""


def test_bad_methods_become_rows_and_the_others_are_not_touched(
    lcbench: Callable, write_method: Callable, own_folder: Path, tmp_path: Path
) -> None:
    for name, (body, _, _) in BAD_METHODS.items():
        write_method(name, body)
    (own_folder / "methods" / "unreadable.py").write_text("def broken(:\n", encoding="utf-8")
    names = ",".join([*BAD_METHODS, "unreadable", "vanilla"])
    arguments = [*SMOKE, "--task", "mqar", "--timeout", "10", "--memory-limit", "2", "--method"]
    done = lcbench(*arguments, names, "--results", "out", LCBENCH_PATH=str(own_folder))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "xxx" not in done.stdout + done.stderr
    assert "unreadable cannot be loaded" in done.stdout
    frame = rows_in(tmp_path / "out")
    assert not frame.duplicated(["method", "context"]).any()
    assert frame.groupby("method")["context"].agg(list).map(list).tolist() == [[32, 64]] * 14
    first = frame.drop_duplicates("method").set_index("method")
    for name, (_, status, signal_name) in BAD_METHODS.items():
        row = first.loc[name]
        assert status in (None, row["status"]), f"{name} is {row['status']}: {row['error']}"
        assert (row["exit_signal"] if pd.notna(row["exit_signal"]) else None) == signal_name
        if row["status"] != "ok":
            assert row["error"], name
            assert row["stage"] in store.STAGES, name
    assert (first.loc["unreadable", "status"], first.loc["unreadable", "stage"]) == (
        "error",
        "load",
    )
    reasons = first["error"]
    assert "no luck" in reasons["raises"]
    assert "SyntaxError" in reasons["unreadable"]
    assert "[2, 9, 16]" in reasons["wrong-shape"]
    assert "a cell may hold 2.0 GiB" in reasons["leaks"]

    alone = lcbench(*arguments, "vanilla", "--results", "alone")
    assert alone.returncode == 0, alone.stderr
    columns = ["cell_id", "context", "status", "score", "loss_nats", "correct_bits", "num_params"]
    with_bad, without = (
        rows[rows["method"] == "vanilla"][columns].reset_index(drop=True)
        for rows in (frame, rows_in(tmp_path / "alone"))
    )
    pd.testing.assert_frame_equal(with_bad, without)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--method", "vanila"], "did you mean 'vanilla'"),
        (["run", "--method", "sliding-window:windo=3"], "did you mean 'window'"),
        (["run", "--method", "sliding-window:window=0"], "window must be at least 1, got 0"),
        (["run", "--method", "sliding-window:window=wide"], "takes int, got 'wide'"),
        (["run", "--method", "all", "--suite", "quik"], "did you mean 'quick'"),
        (["run", "--method", "all", "--suite", "quick", "--task", "mqr"], "did you mean 'mqar'"),
        (["run", "--method", "all", "--suite", "quick", "--context", "3k"], "no context 3,072"),
        (["run", "--method", "all", "--suite", "quick", "--context", "far"], "got 'far'"),
        (["run", "--method", "all", "--seed", "x"], "--seed takes whole numbers"),
        (["run", "--method", "all", "--seed", "1", "--seeds", "2"], "give one of the two"),
        (["run", "--method", "all", "--results", "/proc/nowhere"], "cannot be written"),
        (["run", "--methd", "all"], "--method"),
        (["rum"], "did you mean 'run'"),
        (["methods", "nothing-like-it"], "no method"),
        (["tasks", "mqr"], "did you mean 'mqar'"),
        (["suites", "quik"], "did you mean 'quick'"),
        (["check", "vanila"], "did you mean 'vanilla'"),
        (["leaderboard", "--suite", "none-such"], "no results of suite"),
        (["leaderboard", "--columns", "train_rofline"], "did you mean 'train_roofline'"),
        (["run", "--method", "all", "--shard", "3"], "--shard takes K/N, such as 3/8, got '3'"),
        (["run", "--method", "all", "--shard", "9/8"], "counts from 1/8 to 8/8"),
        (["run", "--method", "all", "--results", "gopher://x/y"], "cannot be opened"),
        (["leaderboard", "--results", "nowhere"], "'nowhere' does not exist"),
        (["merge", "nowhere", "--results", "out"], "'nowhere' does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_names_the_value_and_the_way_out(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert words in done.stderr.replace("\n", " ")


def test_cuda_without_cuda_is_told(lcbench: Callable) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    done = lcbench("run", "--method", "all", "--device", "cuda")
    assert done.returncode == 2
    assert "cuda" in done.stderr.lower()
    assert "cpu" in done.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(lcbench: Callable, tmp_path: Path) -> None:
    done = lcbench("run", "--method", "all", "--suite", "standard", "--dry-run", "--results", "out")
    assert done.returncode == 0, done.stderr
    assert "sliding-window · prefill at 131,072" in done.stdout
    assert "about" in done.stdout
    assert not (tmp_path / "out").exists()


def test_results_go_to_a_url_and_come_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcbench.journal.local_results", lambda: tmp_path)
    url = f"mock:///{tmp_path.name}"
    arguments = [*SMOKE, "--method", "vanilla", "--task", "mqar", "--results", url]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert f"Results: {url}/smoke/" in done.output
    again = CliRunner().invoke(main, arguments)
    assert "Nothing to measure; 1 were there before" in again.output
    board = CliRunner().invoke(main, ["leaderboard", "--results", url])
    assert "vanilla" in board.output
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_corrupt_file_among_results_is_named_and_the_rest_shown(
    lcbench: Callable, tmp_path: Path
) -> None:
    done = lcbench(*SMOKE, "--method", "vanilla", "--context", "128", "--results", "out")
    assert done.returncode == 0, done.stderr
    (tmp_path / "out" / "smoke" / "torn.parquet").write_bytes(b"PAR1 not really")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "out" / "smoke" / "foreign.parquet")
    shown = lcbench("leaderboard", "--results", "out")
    assert shown.returncode == 0
    assert "vanilla" in shown.stdout
    assert "torn.parquet" in shown.stderr
    assert "foreign.parquet" in shown.stderr


def test_peaks_measured_before_a_run_stand_in_its_rows_and_on_the_board(tmp_path: Path) -> None:
    def lcbench(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    out = str(tmp_path / "out")
    env_id = runner.read_setting("cpu").environment["env_id"]
    peaks = machine.Peaks({"float32": 1e9, "bfloat16": 2e9}, 5e8, "2026-01-01T00:00:00+00:00")
    machine.write(peaks, tmp_path / "out", env_id)
    lcbench(*SMOKE, "--method", "vanilla", "--context", "128", "--results", out, "--deterministic")
    frame = rows_in(tmp_path / "out")
    assert frame["deterministic"].all()
    assert set(frame["matmul_flops_per_s"]) == {1e9}
    assert set(frame["copy_bytes_per_s"]) == {5e8}
    board = ("leaderboard", "--results", out, "--columns", "prefill_roofline")
    (row,) = json.loads(lcbench(*board, "--format", "json"))
    prefill = frame[frame["kind"] == "prefill"].iloc[0]
    least_s = max(prefill["flops"] / 1e9, prefill["touched_bytes"] / 5e8)
    assert row["prefill_roofline"] == pytest.approx(least_s / prefill["step_ms"] * 1e3)
    assert "quality" not in row
    table = lcbench(*board)
    assert "Prefill roofline share" in table
    assert "Roofline share: the least time" in table


def test_env_tells_peaks_and_what_is_wrong(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["env", "--results", str(tmp_path / "none")])
    assert done.exit_code == 0, done.output
    assert "not measured; lcbench env --measure does" in done.stdout
    assert ("Warning: " in done.stdout) != ("Nothing seen that would spoil" in done.stdout)


def test_no_results_says_how_to_get_some(lcbench: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = lcbench("leaderboard", "--results", "empty")
    assert done.returncode == 0
    assert "lcbench run --method all" in done.stdout
