"""The Tasks page: who can do what, how far it holds, and what is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from lcbench import store
from lcbench.app import charts, task_charts, task_example, tasks
from lcbench.examples import Example, Piece

OpenPage = Callable[..., Any]


def texts(page: Any) -> str:
    kinds = (page.markdown, page.caption, page.warning, page.info, page.code, page.html)
    return "\n".join(element.value for kind in kinds for element in kind)


def figure(page: Any, number: int) -> dict[str, Any]:
    return json.loads(page.get("plotly_chart")[number].proto.spec)


def change(results: Path, chosen: dict[str, object], **columns: object) -> None:
    """Write the sample again with some rows changed: those that have what `chosen` says."""
    (file,) = results.rglob("results.parquet")
    rows = store.read_table([file]).table.to_pylist()
    for row in rows:
        if all(row[name] == value for name, value in chosen.items()):
            row.update(columns)
    store.write_rows(file, rows)


@pytest.mark.parametrize("failures", [False, True])
def test_the_page_shows_results(
    sample: SimpleNamespace, results: Path, open_page: OpenPage, failures: bool
):
    sample.write(results, failures=failures)
    page = open_page("tasks")
    assert not page.exception
    assert not page.warning
    assert len(page.get("plotly_chart")) == 2


def test_what_models_wrote_stands_below_their_scores(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    assert not open_page("tasks").dataframe
    wrote = {"generated_exact_match": 0.25, "generated_chrf": 61.52, "num_generated": 32}
    change(results, {"kind": "quality", "status": "ok", "method": "vanilla"}, **wrote)
    page = open_page("tasks")
    [shown] = [table.value for table in page.dataframe if "chrF" in table.value]
    assert set(shown["Exactly right (%)"]) == {25.0}
    assert set(shown["chrF"]) == {61.5}
    assert "wrote by themselves" in texts(page)


def test_an_empty_folder_gives_a_way_to_results(results: Path, open_page: OpenPage):
    page = open_page("tasks")
    assert not page.exception
    assert "lcbench run --method all" in texts(page)


def test_a_corrupt_file_is_named_and_the_rest_shown(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    (results / "broken.parquet").write_bytes(b"PAR1 no Parquet")
    page = open_page("tasks")
    assert not page.exception
    assert "broken.parquet" in page.warning[0].value
    assert len(page.get("plotly_chart")) == 2


def test_a_link_shows_the_same_view(sample: SimpleNamespace, results: Path, open_page: OpenPage):
    sample.write(results)
    sample.write(results, suite="long")
    page = open_page("tasks", suite="long", task="mqar", context="128")
    assert page.selectbox(key="suite").value == "long"
    assert page.selectbox(key="task").value == "mqar"
    assert page.selectbox(key="context").value == 128
    (layer, *_) = figure(page, 0)["data"]
    assert any("at 128 tokens" in told for row in layer["customdata"] for told in row)


def test_a_failure_and_a_gap_stand_apart_from_each_other_and_from_a_score(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    mine = {"method": "recurrence", "task": "mqar", "context": 64}
    change(results, mine, status="oom", score=None, error=sample.error)
    change(results, {**mine, "method": "vanilla", "seed": 1}, status="timeout", score=None)
    change(results, {**mine, "task": "code-lm"}, suite="elsewhere")
    page = open_page("tasks", suite="quick")
    signs = {
        (row, column): layer["text"][row][column]
        for layer in figure(page, 0)["data"]
        for row in range(4)
        for column in range(2)
        if layer["text"][row][column]
    }
    labels = [tick.partition(" ")[0] for tick in figure(page, 0)["layout"]["yaxis"]["ticktext"]]
    own, anchor = labels.index("recurrence"), labels.index("vanilla")
    assert signs[own, 1] == task_charts.FAILED_SIGN
    assert signs[own, 0] == task_charts.MISSING_SIGN
    assert signs[anchor, 1] == f"0.42 {task_charts.FAILED_SIGN}"
    fills = {json.dumps(layer.get("colorscale")) for layer in figure(page, 0)["data"]}
    assert len(fills) == 3
    assert sample.error not in json.dumps(figure(page, 0))


def test_hovering_tells_the_score_in_its_own_unit_the_floor_and_how_many_seeds_failed():
    scores = pd.DataFrame(
        {
            "label": ["<b>m</b>"],
            "title": ["mqar"],
            "context": [512],
            "num_seeds": [5],
            "score": [0.9],
            "metric": ["accuracy"],
            "floor": [0.125],
            "normalised": [0.7],
            "low": [0.6],
            "high": [0.8],
        }
    )
    failures = pd.DataFrame({"label": ["<b>m</b>"], "title": ["mqar"], "status": ["oom"]})
    ((square,),) = task_charts.squares(scores, failures, ["<b>m</b>"], ["mqar"])
    for words in ("90.0 %", "floor 12.5 %", "0.700 (0.60–0.80)", "1 of 5 out of memory"):
        assert words in square.told
    assert "<b>m</b>" not in square.told.removeprefix("<b>")
    assert square.sign == "0.70 ✕"


def test_a_long_name_is_broken_into_lines_that_join_to_it():
    label = "sparse-global:global_every=64,positions=rotary,window=64"
    style = charts.Style("#000000", "circle", "solid")
    square = task_charts.Square(0.5, "0.50", "", has_failed=False)
    drawn = task_charts.heat_map([[square]], [label], ["mqar"], {label: style})
    (tick,) = drawn.layout.yaxis.ticktext
    name = tick.partition(" <span")[0]
    assert name.replace("<br>", "") == label
    assert max(map(len, name.split("<br>"))) <= task_charts.LINE_LENGTH


def test_the_curve_marks_the_trained_context_and_draws_the_floor(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    curve = figure(open_page("tasks", task="mqar"), 1)
    assert any("floor" in line["name"] for line in curve["data"])
    (note,) = [n for n in curve["layout"]["annotations"] if "trained" in n["text"]]
    assert 10 ** note["x"] == pytest.approx(64)
    assert any(shape["x0"] == 64 for shape in curve["layout"]["shapes"])


def with_curves(results: Path, chosen: dict[str, object], slowness: float, **more: object) -> None:
    change(
        results, {"kind": "quality", "task": "mqar", **chosen},
        curve_steps=[50, 100], curve_loss_nats=[2.0, 1.0], curve_s=[slowness, 2 * slowness],
        **{"env_id": "here", "device": "<b>a device</b>", "threads": 2, **more},
    )  # fmt: skip


def test_learning_curves_are_drawn_over_steps_and_over_seconds(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    with_curves(results, {"method": "vanilla"}, 3.0)
    with_curves(results, {"method": "recurrence"}, 1.0)
    page = open_page("tasks", task="mqar")
    assert page.selectbox(key="over").value == "steps"
    lines = {line["name"]: line for line in figure(page, 2)["data"]}
    assert set(lines) == {"vanilla", "recurrence"}
    assert list(lines["vanilla"]["x"]) == [50, 100]
    assert list(lines["vanilla"]["y"]) == [2.0, 1.0]
    page = open_page("tasks", task="mqar", over="seconds")
    assert page.selectbox(key="over").value == "seconds"
    lines = {line["name"]: line for line in figure(page, 2)["data"]}
    assert list(lines["vanilla"]["x"]) == [3.0, 6.0]
    assert list(lines["recurrence"]["x"]) == [1.0, 2.0]
    assert "planned for longer" in texts(page)


def test_seconds_of_two_machines_are_not_drawn_together(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    with_curves(results, {"method": "sliding-window"}, 1.0)
    with_curves(results, {"method": "recurrence"}, 2.0, env_id="there", device="other")
    assert len(figure(open_page("tasks", task="mqar"), 2)["data"]) == 3
    page = open_page("tasks", task="mqar", over="seconds")
    names = {line["name"] for line in figure(page, 2)["data"]}
    assert len(names) == 2
    assert "recurrence" not in names
    assert "one of 2 machines alone: `<b>a device</b>`" in texts(page)


def test_results_without_learning_curves_say_so(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("tasks", task="mqar")
    assert "No learning curve was kept" in texts(page)
    assert "over" not in {box.key for box in page.selectbox}


def test_the_example_shows_where_evidence_and_answers_are(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    shown = texts(open_page("tasks", task="mqar"))
    assert "the evidence it needs" in shown
    assert "an answer is due" in shown
    assert "Arora et al. (2023)" in shown


def test_a_config_from_a_file_is_never_built(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    huge = '{"noise":false,"num_pairs":1000000000,"power_a":1.0,"vocab_size":64}'
    change(results, {"task": "mqar"}, task_config=huge)
    page = open_page("tasks", task="mqar")
    assert not page.exception
    assert "64 tokens, at the task's defaults" in texts(page)


def test_the_example_is_as_the_suite_asks_it():
    config = '{"alpha":0.3,"num_words":12,"top":1}'
    overrides = tasks.planned_overrides("quick", "frequent-words", config)
    assert dict(overrides or ()) == {"num_words": "12", "alpha": "0.3"}
    assert tasks.planned_overrides("quick", "frequent-words", '{"num_words":13}') is None
    assert tasks.planned_overrides("not-here", "frequent-words", config) is None


def test_a_task_that_is_not_installed_says_so(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    change(results, {"task": "mqar"}, task="<b>theirs</b>")
    page = open_page("tasks", task="<b>theirs</b>")
    assert not page.exception
    assert "not installed here" in page.info[0].value
    assert "<b>theirs</b>" not in "".join(element.value for element in page.html)


def test_a_task_that_cannot_be_drawn_from_is_told_by_its_reason(
    sample: SimpleNamespace,
    results: Path,
    open_page: OpenPage,
    own_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (own_folder / "suites" / "tasks" / "torn.py").write_text("raise OSError('no corpus')\n")
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))
    sample.write(results)
    change(results, {"task": "mqar"}, task="torn")
    page = open_page("tasks", task="torn")
    assert not page.exception
    assert "No example: `task 'torn' does not import" in page.warning[0].value


def test_tokens_are_no_html():
    pieces = [Piece("<script>"), Piece("a & b", "asked", "<i>")]
    told = Example(2, pieces, False, None, "Answers: a & b → <i>")
    drawn = task_example.example_html(told)
    assert "<script>" not in drawn
    assert "<i>" not in drawn
    assert "&lt;script&gt;" in drawn
