import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from lcbench import compare_text, ranking, store
from lcbench.compare import compare

OpenPage = Callable[..., Any]
A, B = "sliding-window:window=128", "vanilla"


@pytest.fixture
def compared(sample: SimpleNamespace, results: Path) -> Path:
    """The sample, with what each example and each distance gave."""
    sample.write(results)
    rows = store.read_table([results]).table.to_pylist()
    for row in rows:
        if row["kind"] == "quality":
            rng = np.random.default_rng(row["seed"])
            row["score_by_example"] = (row["score"] + rng.normal(0, 0.02, 40)).tolist()
            share = max(0.0, min(1.0, 0.9 * row["score"]))
            row["score_by_distance"], row["count_by_distance"] = [1.0, share], [60, 60]
    store.write_rows(results / "quick" / "results.parquet", rows)
    return results


def lines(page: Any) -> str:
    return "\n".join(element.value for element in page.text)


def printed(results: Path, *arguments: str) -> str:
    code = "import sys; from lcbench.cli import main; main(sys.argv[1:])"
    command = ["compare", A, B, "--suite", "quick", "--results", str(results), *arguments]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_best_method_is_held_against_vanilla_unless_the_link_says_otherwise(
    compared: Path, open_page: OpenPage
):
    board = ranking.leaderboard(store.read_rows([compared]).frame)
    labels = ranking.entry_labels(board)
    page = open_page("compare")
    assert not page.exception
    assert page.selectbox(key="a").value == next(label for label in labels if label != B)
    assert page.selectbox(key="b").value == B
    page = open_page("compare", a="recurrence", b=A)
    assert (page.selectbox(key="a").value, page.selectbox(key="b").value) == ("recurrence", A)
    assert "recurrence" not in page.selectbox(key="b").options


def test_terminal_and_page_tell_the_same(compared: Path, open_page: OpenPage):
    page = open_page("compare", a=A, b=B)
    assert not page.exception
    shown = printed(compared)
    cells = [str(cell) for frame in page.dataframe[:1] for cell in frame.value.to_numpy().ravel()]
    missing = [cell for cell in cells if cell not in shown]
    assert not missing
    assert f"{A} is better on 0" in lines(page)
    told = " ".join(shown.split())
    found = compare(store.latest(store.read_rows([compared]).frame), A, B)
    for sentence in compare_text.verdict(compare_text.part_of(found, "quick", "cpu")):
        assert sentence in told
        assert sentence in lines(page)


def test_the_download_is_what_the_command_prints(
    compared: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
):
    import streamlit as st

    saved: list[Any] = []
    monkeypatch.setattr(st, "download_button", lambda label, data, **rest: saved.append(data()))
    open_page("compare", a=A, b=B)
    assert saved == [printed(compared, "--format", "csv").encode()]
    whole = pd.read_csv(io.BytesIO(saved[0]))
    assert set(whole["kind"]) == {"quality", "distance", "train_step", "prefill", "decode"}


def test_a_rung_that_one_failed_has_no_ratio(compared: Path, open_page: OpenPage):
    costs = open_page("compare", a=A, b=B).dataframe[2].value
    assert set(costs["Tokens"]) == {"512", "1,024", "2,048"}  # vanilla ran out of memory at 4,096


def test_another_task_is_shown_by_distance_when_the_link_names_it(
    compared: Path, open_page: OpenPage
):
    page = open_page("compare", a=A, b=B, at="mqar at 64 tokens")
    by_distance = page.dataframe[1].value
    assert by_distance["Task"].tolist() == ["mqar", "mqar"]
    assert by_distance["Distance"].tolist() == ["1", "2–3"]
    assert by_distance["Better"].tolist() == [compare_text.UNDECIDED, B]


def test_two_that_share_nothing_are_told_how_to(results: Path, compared: Path, open_page: OpenPage):
    rows = store.read_table([compared]).table.to_pylist()
    alone = [row for row in rows if row["kind"] == "quality" and row["method"] == "vanilla"]
    alone = [
        {**row, "method": "lonely", "seed": 9, "cell_id": f"{i}"} for i, row in enumerate(alone)
    ]
    store.write_rows(results / "lonely.parquet", alone)
    page = open_page("compare", a="lonely", b=B)
    assert not page.exception
    assert "share no example" in page.info[0].value
    assert "--method lonely --method vanilla" in page.code[0].value


def test_one_method_alone_cannot_be_compared(compared: Path, open_page: OpenPage):
    page = open_page("compare", q="recurrence")
    assert "needs two methods" in page.info[0].value


def test_without_scores_of_examples_costs_are_compared_all_the_same(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("compare", a=A, b=B)
    assert not page.exception
    assert any("nothing is said of quality" in caption.value for caption in page.caption)
    assert "Speed" in page.dataframe[0].value


def test_names_from_a_file_are_never_markup(compared: Path, open_page: OpenPage):
    from lcbench.app import charts, compare_charts

    evil = "<img src=x onerror=alert(1)>"
    rows = store.read_table([compared]).table.to_pylist()
    rows = [
        {**row, "method": evil if row["method"] == "recurrence" else row["method"]} for row in rows
    ]
    store.write_rows(compared / "quick" / "results.parquet", rows)
    page = open_page("compare", a=evil, b=B)
    assert not page.exception
    marked_up = "".join(element.value for element in [*page.markdown, *page.caption])
    assert evil not in re.sub("`[^`]*`", "", marked_up)  # in a code span nothing is markup
    frame = store.read_rows([compared]).frame
    found = compare_text.part_of(compare(frame, evil, B), "quick", "cpu")
    styles = charts.method_styles(pd.DataFrame({"label": [evil, B], "method": [evil, B]}))
    for figure in (
        compare_charts.differences(found, styles),
        compare_charts.distances(found.distances, found, styles),
    ):
        assert evil not in figure.to_json()


def test_the_better_side_of_a_difference_lies_right(compared: Path):
    from lcbench.app import charts, compare_charts

    found = compare_text.part_of(compare(store.read_rows([compared]).frame, A, B), "quick", "cpu")
    styles = charts.method_styles(pd.DataFrame({"label": [A, B], "method": [A, B]}))
    figure = compare_charts.differences(found, styles)
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    # Vanilla is better throughout: fewer bits, so a positive difference on a reversed axis.
    assert {trace.name for trace in marks} == {"vanilla is better"}
    assert {trace.marker.color for trace in marks} == {styles[B].color}
    signs = {trace.xaxis: np.sign(trace.x[0]) for trace in marks}
    assert signs == {"x": -1, "x2": 1}
    assert (figure.layout.xaxis.autorange, figure.layout.xaxis2.autorange) == (None, "reversed")


def test_a_corrupt_file_is_named_and_the_rest_compared(compared: Path, open_page: OpenPage):
    (compared / "broken.parquet").write_bytes(b"PAR1 no Parquet")
    page = open_page("compare", a=A, b=B)
    assert not page.exception
    assert "broken.parquet" in page.warning[0].value
    assert "better on" in lines(page)


def test_an_empty_folder_gives_a_way_to_results(results: Path, open_page: OpenPage):
    page = open_page("compare")
    assert not page.exception
    assert "lcbench run --method all" in page.code[0].value
