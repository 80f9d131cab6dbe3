import contextlib
import inspect
import os
import signal
import stat
import subprocess
import sys
import time
from multiprocessing import get_context, reduction
from pathlib import Path
from typing import Any

import psutil
import pytest

from lcbench.config import UsageError
from lcbench.failures import scrub
from lcbench.isolation import Child, Send, call

ROOT = Path(__file__).resolve().parents[1]


def answer(send: Send) -> dict[str, Any]:
    send("stage", "thinking")
    return {"bits": b"\x00\xff", "pid": os.getpid()}


def exit_quietly(send: Send) -> None:
    send("stage", "train")
    os._exit(0)


def abort(send: Send) -> None:
    os.abort()


def hang(send: Send) -> None:
    send("stage", "measure")
    time.sleep(600)


def fork_and_hang(path: str, send: Send) -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
    Path(path).write_text(str(pid))
    time.sleep(600)


def shout(send: Send) -> int:
    print("x" * 5_000_000, flush=True)  # noqa: T201
    os.write(2, b"y" * 1_000_000)
    return 1


def misuse(send: Send) -> None:
    raise UsageError("no such thing; did you mean 'that'?")


def fail(send: Send) -> None:
    raise RuntimeError("cannot open /home/someone/secret/data.bin\nsecond line")


def want_too_much(send: Send) -> None:
    raise MemoryError


def test_a_value_comes_back_with_its_bytes() -> None:
    verdict = call(answer)
    assert verdict.status == "ok"
    assert verdict.stage == "thinking"
    assert verdict.value["bits"] == b"\x00\xff"
    assert verdict.value["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("target", "status", "signal_name", "words"),
    [
        (exit_quietly, "crashed", None, "exited with 0"),
        (abort, "crashed", "SIGABRT", "killed by SIGABRT"),
        (fail, "error", None, "RuntimeError: cannot open data.bin"),
        (want_too_much, "oom", None, "MemoryError"),
    ],
)
def test_a_bad_end_is_told_as_what_it_was(
    target: Any, status: str, signal_name: str | None, words: str
) -> None:
    verdict = call(target)
    assert verdict.status == status
    assert verdict.exit_signal == signal_name
    assert words in (verdict.error or "")
    assert "second line" not in (verdict.error or "")


def test_a_hanging_child_is_killed_by_the_clock() -> None:
    call(callable)  # the fork server takes its time to start, on a busy machine seconds
    verdict = call(hang, timeout_s=3.0)
    assert verdict.status == "timeout"
    assert verdict.stage == "measure"
    assert 3.0 <= verdict.wall_s < 30.0


def test_what_a_child_forked_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    call(callable)
    assert call(fork_and_hang, str(path), timeout_s=6.0).status == "timeout"
    grandchild = int(path.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(grandchild) and time.monotonic() < deadline:
        if psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        assert not psutil.pid_exists(grandchild)


def test_megabytes_of_output_neither_block_nor_show(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(shout).value == 1
    assert capfd.readouterr().out == ""


def test_an_interrupt_waits_until_the_child_is_there(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(answer).status == "ok"
    server = Child(answer, (), timeout_s=60.0)._server
    send_fds = reduction.sendfds

    def interrupted(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        send_fds(*args)

    with monkeypatch.context() as patch:
        patch.setattr(reduction, "sendfds", interrupted)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                Child(answer, (), timeout_s=60.0)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        finally:
            signal.signal(signal.SIGINT, before)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    # The fork server has not been brought down by half a request.
    child = Child(answer, (), timeout_s=60.0)
    assert child._server == server
    child.stop("crashed", "not needed")
    assert capfd.readouterr() == ("", "")


INTERRUPTED = """
import signal
from lcbench.isolation import call
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    call(print)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_while_the_fork_server_loads_shows_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any("forkserver" in " ".join(p.cmdline()) for p in _children(process.pid)):
                break
            time.sleep(0.01)
        time.sleep(0.2)
        # As a terminal sends it: to the command and to what it has started.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("interrupted\n", "")


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children()
    return []


def test_misuse_is_raised_in_the_parent() -> None:
    with pytest.raises(UsageError, match="did you mean 'that'"):
        call(misuse)


def test_stopping_a_child_ends_it() -> None:
    child = Child(hang, (), timeout_s=600)
    child.stop("crashed", "interrupted")
    verdict = child.verdict()
    assert verdict is not None
    assert verdict.error == "interrupted"


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from test_isolation import note_and_hang
from lcbench.isolation import call
if __name__ == "__main__":
    call(note_and_hang, sys.argv[1])
"""


def note_and_hang(path: str, send: Send) -> None:
    partial = Path(path + ".part")
    partial.write_text(str(os.getpid()))
    partial.rename(path)
    time.sleep(600)


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parent)))
    noted = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, str(script), str(noted)], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 60
    while not noted.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = psutil.Process(int(noted.read_text()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open /home/me/a/b.txt", "cannot open b.txt"),
        ("in '/a/b/c.py', line 3", "in 'c.py', line 3"),
        ("expected 1/2 of it", "expected 1/2 of it"),
        ("C:\\Users\\me\\x.py is gone", "x.py is gone"),
        ("in [/home/me/x.py], a,/b/c/y.py", "in [x.py], a,y.py"),
        ("file:/home/me/x.py", "file:x.py"),
        ("~/secret/x.py", "x.py"),
    ],
)
def test_scrubbed_text_names_no_folder(text: str, expected: str) -> None:
    assert scrub(text) == expected


def leave_a_child_behind(path: str, send: Send) -> int:
    if os.fork() == 0:
        time.sleep(600)
    children = psutil.Process().children()
    Path(path).write_text(str(children[0].pid))
    return 1


def kill_itself(send: Send) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class BoastError(Exception):
    status = "ok"


def boast(send: Send) -> None:
    raise BoastError("all is well")


def test_what_a_call_leaves_running_ends_with_it(tmp_path: Path) -> None:
    assert call(leave_a_child_behind, str(tmp_path / "pid")).status == "ok"
    left = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(left) and time.monotonic() < deadline:
        if psutil.Process(left).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE


def test_a_kill_from_outside_is_taken_for_want_of_memory() -> None:
    verdict = call(kill_itself)
    assert (verdict.status, verdict.exit_signal) == ("oom", "SIGKILL")


def test_an_error_cannot_name_itself_a_success() -> None:
    assert call(boast).status == "error"


def fork_and_go_on(send: Send) -> int:
    """Both copies come back, as if each were the call."""
    os.fork()
    send("stage", "train")
    return os.getpid()


def test_only_the_call_answers_not_a_copy_that_it_forked() -> None:
    for _ in range(5):
        verdict = call(fork_and_go_on)
        assert (verdict.status, verdict.stage) == ("ok", "train")


def leave_a_daemon(path: str, crash: bool, send: Send) -> int:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            partial = Path(path + ".part")
            partial.write_text(str(os.getpid()))
            partial.rename(path)
            time.sleep(600)
        os._exit(0)
    while not Path(path).exists():
        time.sleep(0.01)
    if crash:
        os._exit(3)
    return 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="orphans are kept on Linux")
@pytest.mark.parametrize("crash", [False, True], ids=["returns", "exits"])
def test_a_daemon_that_left_its_group_ends_with_the_call(tmp_path: Path, crash: bool) -> None:
    call(leave_a_daemon, str(tmp_path / "pid"), crash)
    daemon = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(daemon) and time.monotonic() < deadline:
        if psutil.Process(daemon).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    assert not psutil.pid_exists(daemon) or psutil.Process(daemon).status() == "zombie"


OOM_TEXTS = {
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total": 20 * 2**30,
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000 bytes.":
        8000,
    "Unable to allocate 1.5 MiB for an array with shape (3,)": 3 * 2**19,
    "std::bad_alloc, out of memory": None,
}  # fmt: skip


def run_out(text: str, send: Send) -> None:
    import torch

    raise torch.OutOfMemoryError(text)


@pytest.mark.parametrize("text", OOM_TEXTS)
def test_out_of_memory_tells_the_bytes_asked_for(text: str) -> None:
    verdict = call(run_out, text)
    assert (verdict.status, verdict.asked_bytes) == ("oom", OOM_TEXTS[text])


def test_a_real_allocation_that_fails_tells_what_was_asked() -> None:
    verdict = call(want_terabytes)
    assert (verdict.status, verdict.asked_bytes) == ("oom", 2**50)


def want_terabytes(send: Send) -> None:
    import torch

    torch.empty(2**50, dtype=torch.uint8)


def answer_in_part(send: Send) -> None:
    """Begin an answer, leave it open in a fork too, and hang."""
    answers = inspect.getclosurevars(send).nonlocals["answers"]
    os.write(answers.fileno(), b"\x00\x00\x10\x00[")
    os.fork()
    time.sleep(600)


def write_everywhere(send: Send) -> None:
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"\n")


def answer_much(send: Send) -> dict[str, Any]:
    return {"bits": os.urandom(5_000_000), "text": "line\nline"}


def test_half_an_answer_does_not_hold_up_the_clock() -> None:
    verdict = call(answer_in_part, timeout_s=2.0)
    assert verdict.status == "timeout"


def tell_server(send: Send) -> int:
    return os.getppid()


def end_server(send: Send) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def open_files(send: Send) -> list[str]:
    found: list[str] = []
    for path in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return found


def count_in_processes(send: Send) -> list[int]:
    with get_context("spawn").Pool(1) as pool:
        return pool.map(abs, [-1, -2])


def test_what_a_child_writes_everywhere_harms_nobody_else() -> None:
    server = call(tell_server).value
    assert call(write_everywhere).status == "crashed"
    verdict = call(tell_server)
    assert (verdict.status, verdict.value) == ("ok", server)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_child_holds_its_two_pipes_and_nothing_else_of_its_parents() -> None:
    held = [name for name in call(open_files).value if name != "/dev/null"]
    assert len([name for name in held if name.startswith("pipe:")]) == 2
    assert not [name for name in held if name.startswith(("socket:", "anon_inode:"))]


def test_a_child_may_still_start_processes_of_its_own() -> None:
    assert call(count_in_processes).value == [1, 2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no fork server")
def test_a_child_that_ends_the_fork_server_is_told_from_others_and_does_not_harm_the_next() -> None:
    verdict = call(end_server)
    assert (verdict.status, verdict.lost_server) == ("crashed", True)
    assert call(answer).status == "ok"
    assert not call(exit_quietly).lost_server


def test_a_large_answer_comes_whole() -> None:
    value = call(answer_much).value
    assert len(value["bits"]) == 5_000_000
    assert value["text"] == "line\nline"
