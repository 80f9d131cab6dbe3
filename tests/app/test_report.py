import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("plotly")

from lcbench import store


@pytest.fixture
def page(sample: SimpleNamespace, tmp_path: Path, lcbench: Callable) -> str:
    """What `lcbench report` writes of the sample."""
    sample.write(tmp_path / "results")
    done = lcbench("report", "--html", "board.html", "--results", "results")
    assert done.returncode == 0, done.stderr
    return (tmp_path / "board.html").read_text(encoding="utf-8")


def test_a_report_holds_board_and_figures_and_asks_for_nothing(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert page.count("<h2>") == 1
    for text in ("quick on cpu", "sliding-window:window=512", "Quality against prefill speed"):
        assert text in page
    assert page.count("Plotly.newPlot(") == 6  # trade-off, two tasks, three costs
    # The script goes in once, and no element fetches anything.
    assert page.count("plotly.js v") == 1
    elements = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.(?!data:)", elements)
    assert not re.findall(r"<script[^>]+src=", page)


def test_numbers_are_those_of_the_terminal(page: str, lcbench: Callable) -> None:
    markdown = lcbench("leaderboard", "--format", "markdown", "--results", "results").stdout
    line = next(line for line in markdown.splitlines() if "| recurrence |" in line)
    numbers = [cell.strip() for cell in line.split("|")[4:-1]]
    row = next(row for row in page.split("<tr>") if "<td>recurrence</td>" in row)
    assert re.findall(r"<td>(.*?)</td>", row)[1:] == numbers


def test_nothing_from_a_file_is_markup(
    page: str, sample: SimpleNamespace, tmp_path: Path, lcbench: Callable
) -> None:
    assert sample.error not in page
    assert "&lt;b&gt;out&lt;/b&gt;" in page
    evil = "</script><script>alert(1)</script>"
    rows = store.read_table([tmp_path / "results"]).table.to_pylist()
    for row in rows:
        row["method"] = evil if row["method"] == "recurrence" else row["method"]
        row["task"] = evil if row["task"] == "mqar" else row["task"]
    store.write_rows(tmp_path / "evil" / "rows.parquet", rows)
    lcbench("report", "--html", "evil.html", "--results", "evil")
    assert evil not in (tmp_path / "evil.html").read_text(encoding="utf-8")


def test_a_damaged_file_is_named_and_an_empty_folder_told(
    page: str, tmp_path: Path, lcbench: Callable
) -> None:
    (tmp_path / "results" / "broken.parquet").write_bytes(b"PAR1 no Parquet")
    lcbench("report", "--html", "board.html", "--results", "results")
    text = (tmp_path / "board.html").read_text(encoding="utf-8")
    assert "broken.parquet was left out" in text
    assert "quick on cpu" in text
    (tmp_path / "empty").mkdir()
    lcbench("report", "--html", "none.html", "--results", "empty")
    assert "No results yet" in (tmp_path / "none.html").read_text(encoding="utf-8")
