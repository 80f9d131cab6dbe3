"""`lcbench review`: what `make pr-check` and the workflow tell of a pull request."""

from pathlib import Path
from typing import Any

import pytest

from lcbench import reviewing
from lcbench.difference import escape
from lcbench.reviewing import Step

Checkout = Any


def test_an_honest_pull_request_is_told_of_step_by_step(measured: Checkout, tmp_path: Path) -> None:
    assert measured.lcbench("submit", "my-window").returncode == 0
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    done = measured.lcbench(
        "review", "--changed-since", "main", "--cells", "1", GITHUB_STEP_SUMMARY=str(summary)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    titles = [line for line in done.stdout.splitlines() if line.startswith("## ")]
    assert titles[:2] == ["## ✓ Rules", "## ✓ Check of my-window"]
    assert titles[2].startswith("## ✓ Measured again: smoke/my-window/")
    assert titles[3:] == ["## ✓ Leaderboard"]
    assert "| my-window (new) |" in done.stdout
    assert "to the bit | agrees |" in done.stdout
    assert summary.read_text(encoding="utf-8") == f"before\n{done.stdout.removesuffix(chr(10))}"


def test_a_method_that_ends_its_process_fails_its_check_and_no_other_step(
    measured: Checkout,
) -> None:
    path = measured.root / "methods" / "my_window.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("METHOD = ", "import os\n\nos._exit(0)\nMETHOD = "), "utf-8")
    (measured.root / "lcbench" / "note.txt").write_text("x", encoding="utf-8")
    done = measured.lcbench("review", "--changed-since", "main")
    assert done.returncode == 1
    assert "## ✗ Check of my-window\n\ncrashed: the process exited with 0" in done.stdout
    assert "## ✓ Other changes\n\n1 files are neither methods nor results" in done.stdout
    assert "## ✓ Leaderboard" in done.stdout


def test_what_breaks_a_rule_is_neither_measured_nor_counted(measured: Checkout) -> None:
    assert measured.lcbench("submit", "my-window").returncode == 0
    (path,) = (measured.root / "results" / "published").rglob("*.parquet")
    path.rename(path.with_name("2026-01-01-0123456789ab.parquet"))
    done = measured.lcbench("review", "--changed-since", "main")
    assert done.returncode == 1
    assert "## ✗ Rules" in done.stdout
    assert "| digest |" in done.stdout
    assert "Measured again" not in done.stdout
    assert "The board stays as it is." in done.stdout


def test_a_revision_that_is_not_there_is_told(measured: Checkout) -> None:
    done = measured.lcbench("review", "--changed-since", "--output=x")
    assert done.returncode == 2
    assert "no revision '--output=x'" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "text", ["<script>", "a | b", "[x](javascript:y)", "`x`", "@everyone", "a\n\n# b", "&lt;"]
)
def test_a_strangers_text_is_no_markup(text: str) -> None:
    shown = escape(text)
    assert not set(shown) & set("<>|[]`@\n")
    assert "& " not in shown.replace("&#", "")


def test_a_report_is_bounded() -> None:
    report = reviewing.to_report([Step("x" * 10, False, "y" * 10**7)])
    assert len(report) < 2 * reviewing.MOST_CHARACTERS
