"""What rows say of the code that measured them, and what asking for it leaves alone."""

import os
import subprocess
from pathlib import Path

import pytest

from lcbench import environment


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    done = subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one method in it, from which lcbench seems to come."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text("one\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message=one")
    monkeypatch.setattr(environment, "checkout", lambda: tmp_path)
    return tmp_path


def test_the_commit_and_its_changes_are_told(checkout: Path) -> None:
    told = environment.read_provenance()
    assert (told["commit"], told["dirty"]) == (git(checkout, "rev-parse", "HEAD"), False)
    (checkout / "methods" / "mine.py").write_text("two\n")
    assert environment.read_provenance()["dirty"] is True


def test_asking_writes_nothing_that_a_kill_would_leave_behind(checkout: Path) -> None:
    # Touched, not changed: what git looks up again it would note in its index, under a lock.
    os.utime(checkout / "methods" / "mine.py", (1, 1))
    index = checkout / ".git" / "index"
    before = index.read_bytes()
    assert environment.read_provenance()["dirty"] is False
    assert index.read_bytes() == before


def test_without_a_repository_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "checkout", lambda: tmp_path)
    told = environment.read_provenance()
    assert (told["commit"], told["dirty"]) == (None, None)
