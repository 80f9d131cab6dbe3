"""Runs `lcbench` in forks of one warm process and kills them: `python crash.py CASE FOLDER`.

What would take seconds for each of a hundred runs, loading Python and torch, is done once: a run is
a fork that calls the command line as `lcbench` would, with the fork server that is there.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

from lcbench import journal, merging, runner, running, status, terminal  # noqa: F401 -- warm
from lcbench.cli import main
from lcbench.isolation import Verdict, call
from lcbench.registry import load_suite
from lcbench.suite import Cell, MethodCard, Selection, TaskCard, plan_cells

SUITE = '''"""Tiny."""

from lcbench.suite import CostPlan, ModelPlan, Suite, TaskPlan

SUITE = Suite(
    title="Tiny", version=1, device_kind="cpu", dtype="float32",
    model=ModelPlan(d_model=8, num_layers=1, num_heads=2),
    tasks=(
        TaskPlan(
            task="mqar", config={"num_pairs": "2", "vocab_size": "16"}, train_context=16,
            contexts=(16, 32), batch=2, steps=3, learning_rates=(1e-2,), test_tokens=256,
        ),
    ),
    cost=CostPlan(contexts=(16,), d_model=8, num_heads=2, kinds=("prefill",), seconds=0.005),
    seeds=(0, 1), timeout_s=60.0,
)
'''
COMMAND = ("run", "--method", "vanilla,recurrence", "--suite", "tiny", "--device", "cpu")
NUM_CELLS = 2 * (2 + 1)
SEED = 2024


def fork_run(folder: Path) -> int:
    """Start `lcbench run` in a fork, into a folder; gives the fork's process id."""
    # A run that is killed while it asks for a child takes the server with it, as it should: in
    # everyday life the server is its own. This call starts it anew.
    call(callable)
    pid = os.fork()
    if pid:
        return pid
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    # The server is the first process's child, which a fork of it may not wait for.
    forkserver._forkserver.ensure_running = lambda: None
    # Half of so short a run's time would be the tables after its end, which change no file.
    terminal.show_results = lambda *_, **__: None
    sys.argv = ["lcbench", *COMMAND]
    code = 1
    try:
        main([*COMMAND, "--results", str(folder), "--jobs", "2"])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 -- the log shall have it
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


def wait_for(pid: int, until: Callable[[], bool]) -> int | None:
    """The exit code of a run that ends by itself; None for one killed when its moment came."""
    while True:
        ended, code = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(code)
        if until():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)


def moment(folder: Path, rng: random.Random, span_s: float) -> Callable[[], bool]:
    """When to kill a run: at any time, after it measured a cell or more, or about when it seals."""
    cells = folder / "tiny" / "cells"
    one_more = min(NUM_CELLS, len(list(cells.glob("*.parquet"))) + 1)
    count, latest = rng.choice(((0, span_s), (one_more, span_s / 3), (NUM_CELLS, 0.03)))
    delay = rng.uniform(0, latest)
    begun: list[float] = []

    def passed() -> bool:
        if not begun and len(list(cells.glob("*.parquet"))) >= count:
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() > begun[0] + delay

    return passed


def kill_at_random_moments(base: Path, kills: int = 100) -> dict[str, object]:
    """Runs into folder after folder, each run again until it is complete."""
    rng = random.Random(SEED)
    began = time.monotonic()
    assert wait_for(fork_run(base / "undisturbed"), lambda: False) == 0
    span_s = time.monotonic() - began
    folders: list[str] = []
    codes: list[int] = []
    killed = 0
    while killed < kills:
        folder = base / f"killed-{len(folders)}"
        folders.append(folder.name)
        code = None
        while code is None:
            until = moment(folder, rng, span_s) if killed < kills else lambda: False
            code = wait_for(fork_run(folder), until)
            killed += code is None
        codes.append(code)
    return {"folders": folders, "codes": codes, "killed": killed, "span_s": span_s}


def kill_at_every_step_of_sealing(base: Path) -> dict[str, object]:
    """Kills each change that sealing makes to the disk in its turn, and seals again."""
    cells = tiny_cells()
    folder = journal.Folder(base / "begun", "tiny", "e")
    with journal.Visit(folder, cells, "run", "lcbench run") as visit:
        for cell in cells:
            good = [{"status": "ok", "context": context} for context in cell.contexts]
            verdict = Verdict("ok", good, None, None, None, None, 0.1)
            visit.keep(cell, runner.compose_rows(cell, verdict, SETTING), None)
    folders: list[str] = []
    for step in range(1000):
        target = base / f"step-{step}"
        shutil.copytree(base / "begun", target)
        if fork_seal(target, cells, step) == 0:
            break
        assert fork_seal(target, cells, None) == 0
        folders.append(target.name)
    return {"folders": folders, "cells": len(cells)}


SETTING = runner.Setting("run", {"env_id": "e", "device_kind": "cpu"}, {})


def tiny_cells() -> list[Cell]:
    suite = load_suite("tiny")
    cards = [MethodCard(name, "{}", name) for name in ("vanilla", "recurrence")]
    return plan_cells(
        suite, "tiny", cards, [TaskCard("{}", 1, "mqar")],
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


def fork_seal(base: Path, cells: list[Cell], step: int | None) -> int:
    """Seal in a fork that is killed in place of its `step`-th change to the disk; its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code, count = 1, [0]

    def guarded(real: Callable[..., object]) -> Callable[..., object]:
        def change(*arguments: object, **options: object) -> object:
            if count[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1
            return real(*arguments, **options)

        return change

    with contextlib.suppress(BaseException):
        folder = journal.Folder(base, "tiny", "e")
        with journal.Visit(folder, cells, "again", "lcbench run") as visit:
            for owner, name in ((Path, "unlink"), (Path, "replace"), (os, "fsync")):
                setattr(owner, name, guarded(getattr(owner, name)))
            visit.seal()
            code = 0
    os._exit(code)


CASES = {"random": kill_at_random_moments, "sealing": kill_at_every_step_of_sealing}

if __name__ == "__main__":
    work = Path(sys.argv[2])
    (work / "own" / "suites").mkdir(parents=True)
    (work / "own" / "suites" / "tiny.py").write_text(SUITE, encoding="utf-8")
    os.environ["LCBENCH_PATH"] = str(work / "own")
    del sys.modules["__main__"].__file__  # or every child would import this file with all it warms
    call(callable)
    load_suite("tiny")
    print(json.dumps(CASES[sys.argv[1]](work)))  # noqa: T201
