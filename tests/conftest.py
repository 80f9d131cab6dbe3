"""What the tests of the command line and the runner share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from lcbench import store
from lcbench.locks import FileLock

ROOT = Path(__file__).resolve().parents[1]

LcBench = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest tests first: one that begins last is one that all other processes wait for."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _own_clock(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests time nothing that counts: they neither wait for a run on this machine nor stop one."""
    os.environ["LCBENCH_LOCKS"] = str(tmp_path_factory.mktemp("locks"))


@pytest.fixture
def lcbench(tmp_path: Path) -> LcBench:
    """Run the command line in a process of its own, as a person would."""

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "lcbench", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Set torch's threads, which are what they were when the test is over."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Sealed(NamedTuple):
    """A file of results as it would be submitted."""

    content: bytes
    name: str


Seal = Callable[..., Sealed]


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """A folder that the first of the processes to ask for it fills, and all of them read."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        lock = FileLock(root / f"{name}.lock")
        lock.acquire(wait=True)
        try:
            if not (root / name).exists():
                begun = tmp_path_factory.mktemp(name)
                fill(begun)
                begun.rename(root / name)
        finally:
            lock.release()
        return root / name

    return make


@pytest.fixture(scope="session")
def honest_rows(make_once: MakeOnce) -> list[dict[str, Any]]:
    """Rows of one run of the suite `smoke`: sliding-window and the anchor."""
    command = ["run", "--suite", "smoke", "--method", "vanilla,sliding-window", "--device", "cpu"]

    def measure(folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "lcbench", *command, "--results", str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            timeout=300,
        )

    folder = make_once("honest", measure)
    table = store.read_table([folder]).table
    assert set(table["status"].to_pylist()) == {"ok"}
    return table.to_pylist()


@pytest.fixture
def seal(tmp_path: Path) -> Seal:
    """Seal rows, whatever they say, as `lcbench submit` would."""

    def write(rows: list[dict[str, Any]], method: str = "sliding-window") -> Sealed:
        table = pa.Table.from_pylist(rows, schema=store.SCHEMA)
        day = max(row["started_at"] for row in rows).date()
        path = store.seal(table, tmp_path / "published" / "smoke" / method, day)
        assert isinstance(path, Path)
        return Sealed(path.read_bytes(), path.relative_to(tmp_path / "published").as_posix())

    return write


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A folder for `LCBENCH_PATH`, with empty `methods/` and `suites/tasks/`."""
    folder = tmp_path / "own"
    (folder / "methods").mkdir(parents=True)
    (folder / "suites" / "tasks").mkdir(parents=True)
    return folder


METHOD_FILE = '''"""A method made for a test.

Source: none.
"""

import os
import time
from dataclasses import dataclass

import torch

from lcbench.method import Cost, Method, MethodConfig, MethodSpec, Paper


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Nothing to set."""


class Mine(Method):
    def __init__(self, shape, config):
        super().__init__(shape, config)
        self.mix = torch.nn.Linear(shape.d_model, shape.d_model)

    def forward(self, x, state=None):
        {body}


METHOD = MethodSpec(
    build=Mine, config=Config, title="Mine", family="test", equation="y = W x",
    paper=Paper("None", 2026, "2601.00001"), cost=Cost(1.0, 1.0, 0.0),
)
'''


@pytest.fixture
def write_method(own_folder: Path) -> Callable[[str, str], Path]:
    """Write a method whose `forward` has the given body into `own_folder`."""

    def write(name: str, body: str) -> Path:
        path = own_folder / "methods" / f"{name.replace('-', '_')}.py"
        indented = body.replace("\n", "\n        ")
        path.write_text(METHOD_FILE.replace("{body}", indented), encoding="utf-8")
        return path

    return write


class Checkout:
    """A repository of lcbench's own, to submit from.

    Args:
        root: Where it lies.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def lcbench(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run its command line, in its root."""
        return subprocess.run(
            [sys.executable, "-m", "lcbench", *arguments],
            env={**os.environ, "PYTHONPATH": str(self.root), "COLUMNS": "160", **environment},
            cwd=self.root, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def git(self, *arguments: str) -> str:
        """Run git in it."""
        identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
        return subprocess.run(
            ["git", "-C", str(self.root), *identity, *arguments],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    def add_method(self, name: str, **edits: str) -> Path:
        """A copy of sliding-window without marks, with some words replaced."""
        made = self.lcbench("new", name, "--from", "sliding-window")
        assert made.returncode == 0, made.stderr
        path = self.root / "methods" / f"{name.replace('-', '_')}.py"
        lines = path.read_text(encoding="utf-8").splitlines()
        text = "\n".join(line for line in lines if "EDIT:" not in line) + "\n"
        for old, new in edits.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        return path

    def copy(self, root: Path) -> "Checkout":
        """The same elsewhere."""
        shutil.copytree(self.root, root, symlinks=True)
        return Checkout(root)


@pytest.fixture(scope="session")
def measured_once(make_once: MakeOnce) -> Checkout:
    """A checkout in which a method of one's own, my-window, was measured on smoke."""
    return Checkout(make_once("measured", _measure_in_checkout) / "checkout")


def _measure_in_checkout(base: Path) -> None:
    made = Checkout(base / "checkout")
    # Results come from its own run alone: what this checkout has published is not part of it.
    ignored = shutil.ignore_patterns("__pycache__", "local", "published")
    for folder in ("lcbench", "methods", "suites", "results"):
        shutil.copytree(ROOT / folder, made.root / folder, ignore=ignored)
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, made.root / name)
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message=lcbench")
    made.add_method("my-window")
    done = made.lcbench("run", "--suite", "smoke", "--device=cpu", "-m", "vanilla,my-window")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def measured(measured_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy of `measured_once` to change."""
    return measured_once.copy(tmp_path / "checkout")
