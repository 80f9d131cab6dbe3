"""The Submit page: its steps, and the validator that a file is dropped into."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("streamlit")

from lcbench.submission import RULES

OpenPage = Callable[..., Any]


def drop(page: Any, name: str, content: bytes) -> Any:
    return page.file_uploader(key="submission").set_value((name, content, "")).run()


@pytest.fixture
def rows(honest_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return copy.deepcopy(honest_rows)


def test_the_steps_are_told_without_any_results(open_page: OpenPage):
    page = open_page("submit")
    assert not page.exception
    commands = [element.value for element in page.code]
    assert commands == [
        *("lcbench new my-method", "lcbench check my-method"),
        *("lcbench run --method vanilla,my-method", "lcbench submit my-method"),
        "lcbench validate --changed-since origin/main",
    ]
    assert len(page.dataframe[0].value) == len(RULES)


def test_an_honest_file_passes(open_page: OpenPage, rows: list[dict[str, Any]], seal: Any):
    content, name = seal(rows)
    page = drop(open_page("submit"), name.rpartition("/")[2], content)
    assert not page.exception
    assert not page.error
    assert page.success[0].value == "No rule is broken."
    assert name in page.markdown[-1].value


def test_every_fault_of_a_bad_file_is_shown_as_text(
    open_page: OpenPage, rows: list[dict[str, Any]], seal: Any
):
    for row in rows:
        row["device"] = "<script>alert(1)</script>"
        row["score"] = None if row["score"] is None else 0.123
    content, name = seal(rows)
    page = drop(open_page("submit"), name.rpartition("/")[2], content)
    assert not page.exception
    found = page.dataframe[0].value
    assert {"text", "score"} <= set(found["Rule"])
    assert not page.success
    assert not any("<script>" in element.value for element in page.markdown)


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("x.parquet", b"no Parquet", "parquet"),
        ("x.parquet", b"", "parquet"),
        ("2026-01-01-000000000000.parquet", b"PAR1" + b"\0" * 2**20 + b"PAR1", "size"),
        ("<b>x</b>`.parquet", b"PAR1", "path"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_of(
    name: str, content: bytes, rule: str, open_page: OpenPage
):
    page = drop(open_page("submit"), name, content)
    assert not page.exception
    assert rule in set(page.dataframe[0].value["Rule"])
