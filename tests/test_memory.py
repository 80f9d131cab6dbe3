"""Children that take too much memory are stopped; those beside them are not."""

import time
from typing import Any

import psutil
import pytest

from lcbench.isolation import Child, Send
from lcbench.memory import watch_memory


def hang(send: Send) -> None:
    time.sleep(600)


def leak(send: Send) -> None:
    held: list[bytearray] = []
    while True:
        held.append(bytearray(b"x" * 2**24))
        time.sleep(0.01)


def watch(children: list[Child], most_bytes: int | None) -> list[Any]:
    """The verdicts on children that are watched until the first has one."""
    verdicts: list[Any] = []
    while not any(verdicts):
        time.sleep(0.05)
        for child in children:
            child.poll()
        watch_memory(children, most_bytes)
        verdicts = [child.verdict() for child in children]
    return verdicts


def test_a_child_that_holds_more_than_it_may_is_stopped_and_the_other_goes_on() -> None:
    children = [Child(hang, (), timeout_s=600), Child(leak, (), timeout_s=600)]
    try:
        modest, leaking = watch(children, most_bytes=2**30)
    finally:
        for child in children:
            child.stop("crashed", "over")
    assert modest is None
    assert (leaking.status, leaking.exit_signal) == ("oom", "SIGKILL")
    assert "a cell may hold 1.0 GiB" in leaking.error


def test_the_largest_child_is_stopped_when_the_machine_runs_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = psutil.virtual_memory()
    held = {"count": 0}

    def short() -> Any:
        held["count"] += 1  # as if the leak had used the machine up, after two seconds of it
        left = 2**20 if held["count"] > 40 else real.total
        return real._replace(available=left, total=8 * 2**30)

    monkeypatch.setattr(psutil, "virtual_memory", short)
    children = [Child(hang, (), timeout_s=600), Child(leak, (), timeout_s=600)]
    try:
        modest, leaking = watch(children, most_bytes=None)
    finally:
        for child in children:
            child.stop("crashed", "over")
    assert modest is None
    assert leaking.status == "oom"
    assert "the machine had 0.0 GiB left" in leaking.error
