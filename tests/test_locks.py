"""Locks between processes, here between objects of one: `flock` keeps those apart as well."""

import os
import signal
from pathlib import Path

from lcbench.locks import FileLock, MachineLock, is_locked


def test_one_holds_it_alone_or_several_share_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second, third = (FileLock(path) for _ in range(3))
    assert first.acquire()
    assert is_locked(path)
    assert not second.acquire()
    assert not second.acquire(shared=True)
    first.release()
    assert not is_locked(path)
    assert second.acquire(shared=True)
    assert third.acquire(shared=True)
    assert not first.acquire()


def test_a_note_is_left_for_others_and_goes_with_the_file(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    lock.write("a longer note")
    lock.write("short")
    assert (tmp_path / "lock").read_text() == "short"
    lock.release(remove=True)
    assert not (tmp_path / "lock").exists()
    lock.release()


def test_a_holder_that_is_killed_leaves_it_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = FileLock(path)
        held.acquire()
        os.write(done, b"1")
        signal.pause()
    os.read(ready, 1)
    assert not FileLock(path).acquire()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert FileLock(path).acquire()


def test_a_lock_on_a_file_that_was_removed_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    old, new = FileLock(path), FileLock(path)
    assert old.acquire()
    path.unlink()
    assert new.acquire()
    old.release(remove=True)
    assert path.exists(), "it removes its own file only"


def test_a_cost_cell_has_the_machine_alone_and_its_turn_comes(tmp_path: Path) -> None:
    quality, cost, later = (MachineLock(tmp_path) for _ in range(3))
    assert quality.enter(alone=False)
    assert quality.enter(alone=False)
    assert later.enter(alone=False)
    later.leave()
    assert not cost.enter(alone=True)
    assert not later.enter(alone=False), "a cost cell waits: nothing new starts before it"
    quality.leave()
    assert cost.enter(alone=True)
    assert not quality.enter(alone=False)
    assert not later.enter(alone=True)
    cost.close()
    assert later.enter(alone=True)


def test_without_a_folder_for_locks_a_run_is_on_its_own(tmp_path: Path) -> None:
    assert MachineLock(tmp_path / "absent").enter(alone=True)
