"""`lcbench new`: a file that runs and passes, under a name that is free, and never over another."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lcbench.methods
from lcbench import registry, scaffold
from lcbench.config import UsageError
from lcbench.conformance import check_method

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def as_wheel(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An lcbench without a checkout, with a folder of one's own."""
    monkeypatch.setattr(scaffold, "checkout", lambda: None)
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))
    searched = [*lcbench.methods.__path__, str(own_folder / "methods")]
    monkeypatch.setattr(lcbench.methods, "__path__", searched)
    return own_folder


@pytest.mark.parametrize("origin", [None, "sliding-window", "hybrid", "recurrence"])
def test_a_new_method_passes_every_law_as_it_is(as_wheel: Path, origin: str | None) -> None:
    name = f"my-{origin or 'start'}"
    made = scaffold.create(name, origin)
    assert made.path == as_wheel / "methods" / f"{name.replace('-', '_')}.py"
    spec = registry.load_method(name)
    findings = check_method(spec, cost=False)
    assert {f.law: f.detail for f in findings if f.outcome in ("fail", "undecided")} == {}
    assert spec.title == name.replace("-", " ").capitalize()


@pytest.mark.parametrize("origin", [None, *registry.method_names()])
def test_a_copy_of_any_method_has_a_name_of_its_own_and_marks(origin: str | None) -> None:
    path = scaffold.STARTER if origin is None else registry.source("method", origin).path
    source = path.read_text(encoding="utf-8")
    text = scaffold.rewrite(source, "my-idea", origin)
    marked = [line for line in text.splitlines() if scaffold.MARK in line]
    assert len(marked) >= 3
    assert all(line.lstrip().startswith(("# EDIT:", "EDIT:")) for line in marked)
    begun = f"a copy of {origin}" if origin else "a running mean"
    assert text.startswith(f'"""My idea: begun as {begun}.\n')
    kept = [line for line in source.splitlines()[1:] if "class" not in line and "title" not in line]
    assert set(kept) - set(text.splitlines()) <= {line for line in kept if "build=" in line}


def test_what_is_written_is_in_the_style_of_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    for origin in (None, *registry.method_names()):
        path = scaffold.STARTER if origin is None else registry.source("method", origin).path
        text = scaffold.rewrite(path.read_text(encoding="utf-8"), "my-idea", origin)
        (tmp_path / f"{path.stem}_copy.py").write_text(text, encoding="utf-8")
    for order in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *order, "--config", ROOT / "pyproject.toml", tmp_path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "class_name"),
    [("my-idea", "MyIdea"), ("config", "ConfigMixer"), ("tensor", "TensorMixer"),
     ("true", "TrueMixer"), ("exception", "ExceptionMixer"), ("running-mean", "RunningMeanMixer")],
)  # fmt: skip
def test_the_class_takes_a_name_that_is_free(name: str, class_name: str) -> None:
    text = scaffold.rewrite(scaffold.STARTER.read_text(encoding="utf-8"), name, None)
    assert f"class {class_name}(Method):" in text
    assert f"build={class_name}," in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sliding-window", r"name of a method \(sliding_window.py\)"),
        ("sliding_window", "name of a method"),
        ("quick", "name of a suite"),
        ("code-lm", "name of a task"),
        ("class", "reserved word"),
        ("match", "reserved word"),
        ("all", "reserved word"),
        ("com1", "reserved word"),
        ("My-Idea", "small letters"),
        ("2-fast", "a letter first"),
        ("a--b", "single hyphens"),
        ("_private", "small letters"),
        ("../evil", "small letters"),
        ("naïve", "small letters"),
        ("", "small letters"),
        ("x" * 33, "32 is the most"),
    ],
)
def test_a_name_that_cannot_be_is_refused(as_wheel: Path, name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        scaffold.create(name)
    assert list((as_wheel / "methods").iterdir()) == []


def test_the_name_of_an_installed_packages_method_is_refused(
    as_wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = registry.Source("theirs", "their.package", Path("theirs.py"))
    monkeypatch.setattr(
        registry, "sources", lambda kind: {"theirs": found} if kind == "method" else {}
    )
    with pytest.raises(UsageError, match="'theirs' is the name of a method"):
        scaffold.create("theirs")
    assert list((as_wheel / "methods").iterdir()) == []


def test_nothing_is_overwritten(as_wheel: Path) -> None:
    path = as_wheel / "methods" / "mine.py"
    path.symlink_to(as_wheel / "elsewhere.py")
    with pytest.raises(UsageError, match="name of a method"):
        scaffold.create("mine")
    assert not (as_wheel / "elsewhere.py").exists()


def test_without_a_checkout_and_a_folder_the_way_out_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaffold, "checkout", lambda: None)
    monkeypatch.delenv("LCBENCH_PATH", raising=False)
    with pytest.raises(UsageError, match="export LCBENCH_PATH"):
        scaffold.create("mine")


def test_an_unknown_origin_names_the_nearest(as_wheel: Path, lcbench: Callable) -> None:
    done = lcbench("new", "mine", "--from", "slidingwindow")
    assert done.returncode == 2
    assert "did you mean 'sliding-window'?" in done.stderr
