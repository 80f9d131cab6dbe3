"""The Method page: its card, all that was measured of it, and the commands that repeat it."""

import datetime as dt
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from lcbench import store
from lcbench.app import charts, data, measurements, method

OpenPage = Callable[..., Any]
WriteMethod = Callable[[str, str], Path]


def texts(page: Any) -> str:
    kinds = (page.markdown, page.caption, page.warning, page.info, page.code, page.subheader)
    return "\n".join(element.value for kind in (*kinds, page.html) for element in kind)


def table(page: Any, column: str) -> Any:
    return next(shown.value for shown in page.dataframe if column in shown.value)


def rows_of(results: Path) -> list[dict[str, Any]]:
    return store.read_table([results]).table.to_pylist()


@pytest.mark.parametrize("failures", [False, True])
def test_the_page_shows_results(
    sample: SimpleNamespace, results: Path, open_page: OpenPage, failures: bool
):
    sample.write(results, failures=failures)
    page = open_page("method")
    assert not page.exception
    assert not page.warning
    assert page.selectbox(key="method").value == "vanilla"


def test_an_empty_folder_gives_a_way_to_results(results: Path, open_page: OpenPage):
    page = open_page("method")
    assert not page.exception
    assert "lcbench run --method all" in texts(page)


def test_a_corrupt_file_is_named_and_the_rest_shown(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    (results / "broken.parquet").write_bytes(b"PAR1 no Parquet")
    page = open_page("method")
    assert not page.exception
    assert "broken.parquet" in page.warning[0].value
    assert len(table(page, "Score"))


def test_the_card_tells_paper_equation_cost_fields_and_who_sees_whom(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("method", method="sliding-window")
    shown = texts(page)
    sheet = method.load_sheets()["sliding-window"]
    for words in (sheet["equation"], "63 tokens in one layer", "window=64", "Keys a query sees"):
        assert words in shown
    (link,) = page.get("link_button")
    assert link.proto.url == "https://arxiv.org/abs/2004.05150"
    (picture,) = [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]
    (squares,) = picture["data"]
    drawn = ["".join("#" if seen else "." for seen in row) for row in squares["z"]]
    assert drawn == sheet["pictures"][0]["rows"]


def test_a_method_has_its_colour_of_every_page(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    styles = data.load_results().styles
    page = open_page("method", method="recurrence")
    assert styles["recurrence"].color in page.get("plotly_chart")[0].proto.spec


def test_its_results_are_those_of_every_suite_task_context_and_step(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    long = [{**row, "suite": "long", "cell_id": f"long{row['cell_id']}"}
            for row in rows_of(results)]  # fmt: skip
    store.write_rows(results / "long.parquet", long)
    page = open_page("method", method="sliding-window")
    scores, costs = table(page, "Score"), table(page, "Median (ms)")
    assert len(scores) == 2 * 2 * 2 * 2, "suites, configs, tasks, contexts"
    assert set(scores["Suite"]) == set(costs["Suite"]) == {"quick", "long"}
    assert len(costs) == 2 * 2 * 3 * 4, "suites, configs, steps, contexts"
    first = scores[scores["Task"] == "mqar"].iloc[0]
    assert re.fullmatch(r"\d\d\.\d %", first["Score"])
    assert first["Floor"] == "10.0 %"


def test_failures_are_listed_with_their_reason_as_it_was_written(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("method", method="vanilla", in_measurement="Prefill", in_context="4096")
    failures = table(page, "Reason")
    assert set(failures["Reason"]) == {sample.error}
    assert set(failures["Status"]) == {"out of memory"}
    assert f"`{sample.error}`" in texts(page), "inside a code span nothing is markup"
    assert "None: all" in texts(open_page("method", method="recurrence"))


def test_each_number_has_its_command_hashes_and_machine(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    (file,) = results.rglob("*.parquet")
    told = {"method_hash": "abc123", "commit": "f00d", "env_id": "box", "torch": "2.99"}
    store.write_rows(file, [{**row, **told, "dtype": "float32"} for row in rows_of(results)])
    page = open_page("method", method="sliding-window", in_measurement="mqar", in_context="128")
    everything = table(page, "Command")
    assert len(everything) == 4, "configs, seeds"
    assert set(everything["Context"]) == {128}
    for command, label in zip(everything["Command"], everything["Method"], strict=True):
        words = shlex.split(command)
        assert words[words.index("--method") + 1] == label
        assert words[words.index("--task") + 1] == "mqar"
        assert words[words.index("--context") + 1] == "128"
    assert everything["Command"].iloc[0] in [code.value for code in page.code]
    stated = [pair for shown in page.dataframe if list(shown.value) == ["", " "]
              for pair in shown.value.itertuples(index=False, name=None)]  # fmt: skip
    assert {("method hash", "abc123"), ("commit", "f00d"), ("environment", "box")} <= {*stated}


def test_a_link_shows_the_same_number(sample: SimpleNamespace, results: Path, open_page: OpenPage):
    sample.write(results)
    page = open_page("method", method="recurrence", in_measurement="code-lm")
    wanted = page.selectbox(key="row").options[-1]
    rows = measurements.load_measurements(data.load_results(), "recurrence")
    identity = rows[rows["task"] == "code-lm"]["id"].iloc[-1]
    shared = open_page("method", method="recurrence", in_measurement="code-lm", row=identity)
    box = shared.selectbox(key="row")
    assert box.value == identity
    assert box.options[box.index] == wanted
    assert "context 128" in shared.code[1].value


def test_what_was_measured_again_is_kept_and_told(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    later = {"run_id": "later", "env_id": "other"}
    again = [
        {**row, **later, "started_at": row["started_at"] + dt.timedelta(days=1)}
        for row in rows_of(results)
        if row["method"] == "recurrence" and row["kind"] == "prefill"
    ]  # fmt: skip
    store.write_rows(results / "later.parquet", again)
    page = open_page("method", method="recurrence", in_measurement="Prefill")
    everything = table(page, "Command")
    assert everything["Counts"].tolist() == [True] * 4 + [False] * 4
    assert len(table(page, "Median (ms)")) == 3 * 4


def test_a_method_known_from_results_alone_has_a_page_without_card(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    name = "<b>theirs</b> $x$"
    theirs = [
        {**row, "method": name, "cell_id": f"theirs{row['cell_id']}"}
        for row in rows_of(results)
        if row["method"] == "recurrence"
    ]
    store.write_rows(results / "theirs.parquet", theirs)
    page = open_page("method", method=name)
    assert not page.exception
    assert "Known from its results alone" in page.info[0].value
    assert not page.get("plotly_chart")
    assert len(table(page, "Score")) == 4
    assert page.subheader[0].value == f"`{name}`"
    assert name not in "".join(element.value for element in page.html)


def test_a_file_of_ones_own_is_told_by_its_first_line(
    sample: SimpleNamespace,
    results: Path,
    open_page: OpenPage,
    write_method: WriteMethod,
    own_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    write_method("mine", "return self.mix(x), None")
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))
    sample.write(results)
    mine = [{**row, "method": "mine", "cell_id": f"mine{row['cell_id']}"}
            for row in rows_of(results) if row["method"] == "recurrence"]  # fmt: skip
    store.write_rows(results / "mine.parquet", mine)
    shown = texts(open_page("method", method="mine"))
    assert "A method made for a test." in shown
    assert "lcbench methods mine" in shown


def test_a_method_without_results_has_its_card_and_the_command_to_measure_it(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("method", method="bigbird")
    assert not page.exception
    assert "lcbench run --method bigbird" in [code.value for code in page.code]
    assert page.get("plotly_chart")


def test_a_row_whose_config_is_no_json_is_left_to_the_banner(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    row = next(row for row in rows_of(results) if row["method"] == "recurrence")
    store.write_rows(results / "odd.parquet", [{**row, "config": "{", "cell_id": "odd"}])
    page = open_page("method", method="recurrence")
    assert not page.exception
    assert "recurrence" in page.warning[0].value
    assert "odd" not in " ".join(page.selectbox(key="row").options)


def test_a_value_is_told_with_its_unit():
    row = dict.fromkeys(measurements.COLUMNS) | {"status": "ok", "kind": "prefill"}
    told = measurements.value_text(
        row | {"step_ms": 1234.5678, "vs_vanilla": 2.0, "peak_bytes": 1536}
    )
    assert told == "1,235 ms, 2.00× vanilla, peak 1.5 KiB"
    scored = row | {"kind": "quality", "metric": "bits_per_byte", "score": 2.98765}
    assert measurements.value_text(scored) == "2.988 bits/byte"
    assert measurements.value_text(row | {"status": "oom"}) == charts.STATUS_TITLES["oom"]
