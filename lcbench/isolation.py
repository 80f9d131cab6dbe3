"""A call in a child process the parent can kill, and the parent's verdict on it.

Children come from a fork server that has torch loaded, so isolation costs milliseconds. A child
leads a process group of its own, writes nothing to the terminal, ends when its parent does with all
that it started, and answers in lines of JSON: nothing it sends is ever unpickled, or waited for.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from multiprocessing import (
    connection,
    forkserver,
    get_all_start_methods,
    get_context,
    resource_tracker,
)
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import psutil

from lcbench import confinement, descent
from lcbench.config import UsageError
from lcbench.failures import Status, failure_of

Send = Callable[[str, Any], None]
"""How a child tells its parent something while it works: a topic and a JSON value."""
Target = Callable[..., Any]
"""A module-level function; called with its arguments and a `Send`."""

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Torch's switch for huge pages on Linux CPUs: without it big tensors slow down at random."""
WAIT_POLICY = "OMP_WAIT_POLICY"
"""How OpenMP's threads wait for one another. By default they spin, and where anything else runs on
the machine a small product of matrices was seen to take a hundred times its time; passive threads
sleep."""
PRELOAD = ["lcbench.confined", "lcbench.preload"]
_IS_POSIX = os.name == "posix"
CHUNK_BYTES, MOST_CHUNKS = 2**16, 1024
"""What is read at once of what a child sends; no answer is longer than all chunks together."""
ENDING_S = 5.0
"""How long a child that has answered may take to end."""
LOST_SERVER = 255
"""What multiprocessing gives for the exit code of a child whose fork server cannot tell it."""
# On macOS a process that has loaded torch must not fork.
_HAS_FORK_SERVER = "forkserver" in get_all_start_methods() and sys.platform != "darwin"


class Verdict(NamedTuple):
    """How a call in a child ended."""

    status: Status
    value: Any
    """What it returned, if ok."""
    stage: str | None
    """The last stage it told of."""
    error: str | None
    """Type and first line, without paths."""
    details: str | None
    """The traceback, for a log on this machine only."""
    exit_signal: str | None
    wall_s: float
    asked_bytes: int | None = None
    """The allocation at which it ran out of memory, where that is known."""
    lost_server: bool = False
    """It gave no answer and the fork server had ended, whoever brought that about."""


class Child:
    """One call under way.

    Args:
        target: A module-level function.
        args: Its arguments.
        timeout_s: Longest it may take before it is killed.
    """

    def __init__(self, target: Target, args: tuple[Any, ...], *, timeout_s: float) -> None:
        context = get_context("forkserver") if _HAS_FORK_SERVER else get_context("spawn")
        context.set_forkserver_preload(PRELOAD)
        self._answers, answers = context.Pipe(duplex=False)
        lifeline, self._lifeline = context.Pipe(duplex=False)
        # Both are read once, when the fork server loads torch.
        os.environ.setdefault(HUGE_PAGES, "1")
        os.environ.setdefault(WAIT_POLICY, "PASSIVE")
        self._process = context.Process(
            target=_serve, args=(answers, lifeline, target, args), daemon=False
        )
        self._timeout_s = timeout_s
        self._start()
        self._began = monotonic()
        answers.close()
        lifeline.close()
        self._server = _parent_of(self._process.pid) if _HAS_FORK_SERVER else None
        self._stage: str | None = None
        self._last: tuple[str, Any] | None = None
        self._stopped: tuple[Status, str] | None = None
        self._open = True
        self._partial = b""
        if _IS_POSIX:
            os.set_blocking(self._answers.fileno(), False)
        _LIVE.add(self.pid)

    def _start(self) -> None:
        """Start the process; a fork server that a child brought down is started anew."""
        last = monotonic() + ENDING_S
        while True:
            try:
                with _undisturbed():
                    self._process.start()
            except (ConnectionError, EOFError):
                if monotonic() > last:
                    raise
                sleep(0.05)
            else:
                return

    @property
    def waitables(self) -> list[Any]:
        """What `multiprocessing.connection.wait` can wait on for news."""
        return [self._answers, self._process.sentinel] if self._open else [self._process.sentinel]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid or 0

    @property
    def under_way(self) -> bool:
        """Whether it has neither answered nor been stopped, as of the last poll."""
        return self._last is None and self._stopped is None

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was started."""
        return monotonic() - self._began

    def poll(self) -> list[tuple[str, Any]]:
        """News since the last poll, as topics and values; applies the clock."""
        news: list[tuple[str, Any]] = []
        for line in self._lines():
            try:
                topic, value = json.loads(line, object_hook=_decode)
            except (ValueError, TypeError, RecursionError):
                self.stop("crashed", "the process sent something that is not an answer")
                break
            if topic in ("done", "failed"):
                self._last = (topic, value)
            else:
                self._stage = value if topic == "stage" else self._stage
                news.append((topic, value))
        if self.under_way and self.elapsed_s > self._timeout_s:
            self.stop("timeout", f"stopped after {self._timeout_s:g} s")
        return news

    def _lines(self) -> list[bytes]:
        """Whole lines that have come; never waits for the rest of one, which may never come."""
        for _ in range(MOST_CHUNKS):
            chunk = self._read() if self._open else None
            if not chunk:
                self._open = self._open and chunk is None
                break
            self._partial += chunk
        *lines, self._partial = self._partial.split(b"\n")
        if len(self._partial) >= MOST_CHUNKS * CHUNK_BYTES:
            self.stop("crashed", "the process sent more than any answer holds")
        return lines

    def _read(self) -> bytes | None:
        """What has come; None if nothing has yet, and no bytes if nothing will."""
        try:
            if _IS_POSIX:
                return os.read(self._answers.fileno(), CHUNK_BYTES)
            return self._answers.recv_bytes() if self._answers.poll() else None
        except BlockingIOError:
            return None
        except (EOFError, OSError):
            return b""

    def verdict(self) -> Verdict | None:
        """How it ended, or None while it has not; call after `poll`."""
        if self.under_way and self._process.is_alive():
            return None
        wall_s, lost = self.elapsed_s, self._lost_server()
        if self._last is not None and self._stopped is None:
            self._process.join(ENDING_S)
        self._end()
        if self._stopped is None and self._last is None:
            self.poll()  # an answer sent just before the end is still in the pipe
        verdict = self._judge(wall_s)
        return verdict._replace(lost_server=lost and self._last is None and self._stopped is None)

    def _lost_server(self) -> bool:
        """Whether the fork server ended under it; its pipes close a moment before it is gone."""
        if not self._server or self._process.exitcode != LOST_SERVER:
            return False
        with contextlib.suppress(psutil.Error):
            server = psutil.Process(self._server)
            last = monotonic() + ENDING_S
            while server.status() != psutil.STATUS_ZOMBIE:
                if monotonic() > last:
                    return False
                sleep(0.01)
        return True

    def _judge(self, wall_s: float) -> Verdict:
        name = _signal_name(self._process.exitcode)
        if self._stopped is not None:
            status, error = self._stopped
            return Verdict(status, None, self._stage, error, None, name, wall_s)
        if self._last is None:
            if name == "SIGKILL":
                error = "killed by SIGKILL, most likely because the machine ran out of memory"
                return Verdict("oom", None, self._stage, error, None, name, wall_s)
            ending = f"killed by {name}" if name else f"exited with {self._process.exitcode}"
            error = f"the process was {ending}" if name else f"the process {ending}"
            return Verdict(
                "crashed", None, self._stage, f"{error} and gave no result", None, name, wall_s
            )
        topic, value = self._last
        if topic == "done":
            return Verdict("ok", value, self._stage, None, None, None, wall_s)
        return Verdict(
            value["status"], None, self._stage, value["error"], value["details"], None, wall_s,
            value["asked_bytes"],
        )  # fmt: skip

    def stop(self, status: Status, error: str) -> None:
        """Kill it and give it this verdict."""
        self._stopped = (status, error)
        self._end()

    def _end(self) -> None:
        if self._lifeline.closed:
            return
        descent.kill(*descent.descendants(self.pid))
        descent.kill_group(self.pid)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._lifeline.close()
        _LIVE.discard(self.pid)
        if _HAS_FORK_SERVER and self._server:
            # What outlived it by leaving its group has become the fork server's child.
            for stray in set(descent.children(self._server)) - _LIVE:
                descent.kill(*descent.descendants(stray), stray)


@contextlib.contextmanager
def _undisturbed() -> Generator[None, None, None]:
    """Have SIGINT and SIGTERM wait while a process is started.

    A request to the fork server that is broken off brings it down, with a traceback on the
    terminal; and Ctrl-C reaches the server too, before it is so far as to ignore it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    waiting: list[tuple[int, Any]] = []
    if _IS_POSIX:
        # Which would take the mask off again, if it were started under it.
        resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ()) if _IS_POSIX else None
    try:
        for number in handlers:
            signal.signal(number, lambda *call: waiting.append(call))
        if mask is not None:
            # The new process inherits this.
            signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
        yield
    finally:
        if mask is not None:
            # What came meanwhile is handed to the function above.
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in waiting:
            handlers[number](number, frame)


_LIVE: set[int] = set()
"""Children that were started and have not been ended."""


def call(target: Target, *args: Any, timeout_s: float = 120.0) -> Verdict:
    """Call a function in a child and wait for the verdict.

    Raises:
        UsageError: The function raised one.
    """
    child = Child(target, args, timeout_s=timeout_s)
    try:
        while True:
            connection.wait(child.waitables, timeout=0.5)
            child.poll()
            verdict = child.verdict()
            if verdict is not None:
                break
    except BaseException:
        child.stop("crashed", "interrupted")
        raise
    if verdict.status == "usage":
        raise UsageError(verdict.error or "")
    return verdict


def _serve(
    answers: Connection, lifeline: Connection, target: Target, args: tuple[Any, ...]
) -> None:
    """What a child does, from its first instruction to its last."""
    if hasattr(os, "setsid"):
        os.setsid()
    if _IS_POSIX:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    descent.die_with_parent()
    descent.keep_orphans()
    me = os.getpid()
    confinement.drop_secrets()
    _close_all_but(answers.fileno(), lifeline.fileno())
    with contextlib.suppress(OSError):
        # If the kernel must pick a victim, a measurement and not its keeper.
        Path("/proc/self/oom_score_adj").write_text("1000")
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    lock = threading.Lock()

    def send(topic: str, value: Any) -> None:
        if os.getpid() != me:
            os._exit(0)  # A copy that the call forked runs on as if it were the call.
        line = json.dumps([topic, value], default=_encode).encode() + b"\n"
        with lock:
            if not _IS_POSIX:
                answers.send_bytes(line)
            while _IS_POSIX and line:
                line = line[os.write(answers.fileno(), line) :]

    try:
        send("done", target(*args, send))
    except BaseException as error:  # noqa: BLE001 -- whatever it is, the parent must hear of it
        send("failed", failure_of(error))
    # Not by returning: taking torch down in good order takes longer than a short cell. And with all
    # that the call may have started, which would disturb the next.
    descent.kill(*descent.descendants(me))
    descent.kill_group(me)
    os._exit(0)


def _close_all_but(*kept: int) -> None:
    """Close what was inherited: the pipes of the fork server and of multiprocessing's tracker.

    A byte in one of them brings the server down, and with it every other call.
    """
    with contextlib.suppress(OSError):
        for number in [int(path.name) for path in Path("/dev/fd").iterdir()]:
            if number > 2 and number not in kept:
                with contextlib.suppress(OSError):
                    os.close(number)
    # Their numbers will be those of other files: a call that forks must not write there.
    tracker: Any = vars(resource_tracker)["_resource_tracker"]
    server: Any = vars(forkserver)["_forkserver"]
    tracker._fd = tracker._pid = None
    server._forkserver_alive_fd = server._forkserver_address = server._forkserver_pid = None


def _end_with_parent(lifeline: Connection) -> None:
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        descent.kill(*descent.descendants(os.getpid()))
        descent.kill_group(os.getpid())
        os._exit(1)


def _encode(value: object) -> object:
    if isinstance(value, bytes):
        return {"__bytes__": value.hex()}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decode(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["__bytes__"]) if value.keys() == {"__bytes__"} else value


def _parent_of(pid: int | None) -> int | None:
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return None


def _signal_name(exitcode: int | None) -> str | None:
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
