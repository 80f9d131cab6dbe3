"""What a child cannot reach: the network, its parent's secrets and memory; and what it keeps."""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcbench import confinement
from lcbench.isolation import Send, call

LcBench = Callable[..., Any]
SECRET = "not-for-methods-5f1c"


def tell_network(send: Send) -> str:
    return confinement.network()


@pytest.fixture(scope="module")
def cut() -> None:
    told = call(tell_network).value
    if told != confinement.CUT:
        pytest.skip(f"the network is {told}")


def connect(port: int, send: Send) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.mark.usefixtures("cut")
def test_a_child_reaches_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        verdict = call(connect, port)
    assert verdict.status == "error"
    assert "unreachable" in (verdict.error or "")


def go_back(pid: int, send: Send) -> None:
    """Enter the network of the process that started the run."""
    with open(f"/proc/{pid}/ns/net") as network:  # noqa: PTH123
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), confinement.NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "refused")


def read_memory(pid: int, send: Send) -> None:
    with open(f"/proc/{pid}/mem", "rb"):  # noqa: PTH123
        pass


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("attempt", [go_back, read_memory])
def test_a_child_does_not_get_at_its_parent(attempt: Callable[..., None]) -> None:
    verdict = call(attempt, os.getpid())
    assert verdict.status == "error"
    assert "PermissionError" in (verdict.error or "")


SCRIPT = """
import os, sys
from lcbench.isolation import call
sys.path.insert(0, {tests!r})
from test_confinement import look_for
if __name__ == "__main__":
    print(call(look_for, {secret!r}).value)
"""


def look_for(secret: str, send: Send) -> dict[str, bool]:
    """Where a secret shows, and whether what methods need came along."""
    start = Path("/proc/self/environ")
    server = Path(f"/proc/{os.getppid()}/environ")
    return {
        "environment": secret in str(os.environ),
        "start": start.exists() and secret in start.read_text(),
        "server": server.exists() and secret in server.read_text(),
        "cache": os.environ.get("TRITON_CACHE_DIR") == "/somewhere",
    }


def test_a_secret_of_the_parents_does_not_reach_a_child(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), secret=SECRET))
    environment = {
        "GITHUB_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "TORCH_HUB_TOKEN": SECRET,
        "SOMETHING_OF_MINE": SECRET, "HTTPS_PROXY": f"http://me:{SECRET}@proxy",
        "TRITON_CACHE_DIR": "/somewhere", "PYTHONPATH": str(Path(__file__).parents[1]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    want = {"environment": False, "start": False, "server": False, "cache": True}
    assert done.stdout.strip() == str(want)


@pytest.mark.parametrize(
    "name", ["PATH", "LC_ALL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF",
             "TRITON_CACHE_DIR", "LCBENCH_PATH", "THP_MEM_ALLOC_ENABLE", "PYTHONPATH"],
)  # fmt: skip
def test_what_computing_needs_is_kept(name: str) -> None:
    assert confinement.is_kept(name)


@pytest.mark.parametrize(
    "name", ["GITHUB_TOKEN", "AWS_SESSION_TOKEN", "HF_TOKEN", "SSH_AUTH_SOCK", "PGPASSWORD",
             "TORCH_API_KEY", "LCBENCH_SECRET", "PYTHON_KEYRING_PASSWORD", "ALL_PROXY"],
)  # fmt: skip
def test_what_may_be_a_secret_is_not(name: str) -> None:
    assert not confinement.is_kept(name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's namespaces")
def test_a_system_that_refuses_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Refusing:
        def unshare(self, flags: int) -> int:
            asked.append(flags)
            ctypes.set_errno(errno.EPERM)
            return -1

    monkeypatch.setattr(confinement, "_network", confinement.network())
    monkeypatch.setattr(confinement.ctypes, "CDLL", lambda *_, **__: Refusing())
    monkeypatch.delenv(confinement.OPEN, raising=False)
    confinement.cut_network()
    refusal = "open: the system refused a network namespace (Operation not permitted)"
    assert confinement.network() == refusal
    assert asked[0] & confinement.NEW_NETWORK


def test_env_and_a_run_say_that_the_network_is_open(lcbench: LcBench, own_folder: Path) -> None:
    told = lcbench("env", "--device", "cpu", LCBENCH_ALLOW_NETWORK="1")
    assert "network         open: as asked for" in told.stdout
    method = own_folder / "methods" / "broken.py"
    method.write_text('"""Does not import."""\nraise RuntimeError("broken")\n')
    arguments = ("run", "--suite", "smoke", "--device", "cpu", "--method", "broken")
    opened = lcbench(*arguments, "--allow-network", "--results", "a", LCBENCH_PATH=str(own_folder))
    assert "Methods run with the network open: as asked for." in opened.stdout
    assert "Methods run with the network" in opened.stdout


@pytest.mark.usefixtures("cut")
def test_env_says_that_there_is_no_network(lcbench: LcBench) -> None:
    assert "network         none" in lcbench("env", "--device", "cpu").stdout
