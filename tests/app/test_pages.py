import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")

from lcbench import ranking, store
from lcbench.app import leaderboard

PAGES = ("board", "trade_off", "scaling")
OpenPage = Callable[..., Any]


def texts(page: Any) -> str:
    kinds = (page.markdown, page.caption, page.warning, page.info, page.code, page.subheader)
    return "\n".join(element.value for kind in kinds for element in kind)


def methods(page: Any) -> list[str]:
    return page.dataframe[0].value["Method"].tolist()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("failures", [False, True])
def test_a_page_shows_results(
    sample: SimpleNamespace, name: str, failures: bool, results: Path, open_page: OpenPage
):
    sample.write(results, failures=failures)
    page = open_page(name)
    assert not page.exception
    assert not page.warning


@pytest.mark.parametrize("name", PAGES)
def test_an_empty_folder_gives_a_way_to_results(name: str, open_page: OpenPage, results: Path):
    page = open_page(name)
    assert not page.exception
    assert "lcbench run --method all" in texts(page)
    assert str(results) in texts(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_corrupt_file_is_named_and_the_rest_shown(
    sample: SimpleNamespace, name: str, results: Path, open_page: OpenPage
):
    sample.write(results)
    (results / "broken.parquet").write_bytes(b"PAR1 no Parquet")
    page = open_page(name)
    assert not page.exception
    assert "broken.parquet" in page.warning[0].value
    assert page.selectbox(key="suite").value == "quick"


def test_rows_whose_config_is_no_json_are_named_and_the_rest_shown(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    row = store.read_table([results]).table.to_pylist()[0]
    store.write_rows(results / "odd.parquet", [{**row, "config": "{", "cell_id": "odd"}])
    page = open_page("board")
    assert not page.exception
    assert "config" in page.warning[0].value
    assert len(methods(page)) == sample.num_entries


def test_the_board_has_a_row_an_entry_in_the_order_of_the_leaderboard(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    board = ranking.leaderboard(store.read_rows([results]).frame)
    page = open_page("board")
    assert methods(page) == ranking.entry_labels(board)
    titles = page.dataframe[0].value.columns
    assert {"Quality", "Rows failed", "State (B/token)"} <= set(titles)
    assert not {column.name for column in ranking.board_columns() if "_" in column.name} & {*titles}


def test_a_link_shows_the_same_view(sample: SimpleNamespace, results: Path, open_page: OpenPage):
    sample.write(results)
    sample.write(results, suite="long")
    page = open_page("board", suite="long", q="WINDOW=", sort="prefill_speed", reverse="True")
    assert page.selectbox(key="suite").value == "long"
    assert methods(page) == ["sliding-window:window=512", "sliding-window:window=128"]
    page = open_page("trade_off", x="state_bytes_per_token", y="decode_speed")
    assert page.selectbox(key="x").value == "state_bytes_per_token"
    page = open_page("scaling", quantity="score", task="mqar, trained at 64")
    assert page.selectbox(key="task").value == "mqar, trained at 64"


def test_a_search_that_finds_nothing_says_so(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("board", q="no such method")
    assert "No method matches" in page.info[0].value


def test_failures_are_listed_with_their_reason_as_it_was_written(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("board")
    failures = page.dataframe[2].value
    assert set(failures["Status"]) == {"oom"}
    assert set(failures["Reason"]) == {sample.error}
    assert sample.error not in texts(page)


def test_scores_stand_in_their_own_unit_beside_their_floor(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    scores = open_page("board").dataframe[1].value
    floors = scores.iloc[-1]
    assert floors["mqar, trained at 64, %", "at 64*"] == pytest.approx(10)
    assert floors["code-lm, trained at 64, bits/byte", "at 128"] == pytest.approx(4.7)


def test_the_downloads_are_what_is_shown_and_what_the_command_line_prints(
    sample: SimpleNamespace, results: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
):
    import streamlit as st

    sample.write(results)
    saved: list[Any] = []
    monkeypatch.setattr(st, "download_button", lambda label, data, **rest: saved.append(data()))
    page = open_page("board", columns=["memory", "quality"], only="mqar", at="128", sort="quality")
    shown = page.dataframe[0].value
    csv, parquet = saved
    columns = "memory,quality,quality_low,quality_high"
    command = ["leaderboard", "--results", str(results), "--format", "csv", "--columns", columns]
    code = "import sys; from lcbench.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--task", "mqar", "--context", "128"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert csv == done.stdout.encode()
    frame = pd.read_csv(io.BytesIO(csv), keep_default_na=False, na_values={"memory": [""]})
    pd.testing.assert_frame_equal(frame, pd.read_parquet(io.BytesIO(parquet)), check_dtype=False)
    assert shown["Quality"].tolist() == frame["quality"].round(3).tolist()
    assert len(frame) == sample.num_entries


def test_a_task_and_a_context_are_counted_as_if_nothing_else_had_been_asked(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    everything = open_page("board").dataframe[0].value.set_index("Method")
    one = open_page("board", only="mqar", at="64")
    board = one.dataframe[0].value.set_index("Method")
    # mean over the seeds of (0.1 + 0.9 skill - floor) / (ceiling - floor), as the sample writes it
    assert board.loc["vanilla", "Quality"] == pytest.approx(0.9 - 0.064 + 0.01, abs=1e-3)
    assert board.loc["vanilla", "Quality"] != everything.loc["vanilla", "Quality"]
    assert "mqar at 64 tokens" in texts(one)
    scores = one.dataframe[1].value
    assert [title[1] for title in scores.columns[1:]] == ["at 64*"]


def test_who_was_not_measured_at_a_context_is_listed_as_missing(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    row = store.read_table([results]).table.to_pylist()[0]
    longer = {"context": 256, "cell_id": "longer", "score": 0.5}
    store.write_rows(results / "longer.parquet", [{**row, **longer}])
    board = open_page("board", at="256").dataframe[0].value.set_index("Method")
    assert len(board) == sample.num_entries
    assert board["Quality"].notna().sum() == 1


def test_effective_contexts_are_told_task_by_task_on_demand(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    held = open_page("board", by_task="effective_context").dataframe[1].value
    assert held.set_index("Method").loc["vanilla", "mqar, trained at 64 (tokens)"] == 128


def test_a_tier_is_the_folder_that_a_row_was_read_from(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results / "local")
    rows = store.read_table([results]).table.to_pylist()
    store.write_rows(
        results / "published" / "rows.parquet",
        [row for row in rows if row["method"] in ("vanilla", "recurrence")],
    )
    assert len(methods(open_page("board"))) == sample.num_entries
    assert methods(open_page("board", tier="published")) == ["vanilla", "recurrence"]
    assert set(methods(open_page("board", tier="local", family="local"))) == {
        "sliding-window:window=128",
        "sliding-window:window=512",
    }


def test_what_a_reader_changes_is_in_the_url_and_a_default_is_not(
    sample: SimpleNamespace, results: Path, open_page: OpenPage
):
    sample.write(results)
    page = open_page("board", sort="no such column")
    assert page.selectbox(key="sort").value == "pareto-layer"
    page.selectbox(key="sort").select("quality").run()
    page.multiselect(key="tier").select("local").run()
    assert page.query_params == {"sort": "quality", "tier": "local"}
    page.selectbox(key="sort").select("pareto-layer").run()
    assert page.query_params == {"tier": "local"}


def test_new_files_show_after_a_reload(sample: SimpleNamespace, results: Path, open_page: OpenPage):
    assert "No results yet" in texts(open_page("board"))
    sample.write(results)
    assert len(methods(open_page("board"))) == sample.num_entries


def test_the_app_needs_no_torch():
    names = [page.module for page in leaderboard.PAGES]
    modules = ", ".join(f"lcbench.app.{name}" for name in (*names, "launch"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_entry_script_draws_the_board(sample: SimpleNamespace, results: Path):
    from streamlit.testing.v1 import AppTest

    from lcbench.app import launch

    sample.write(results)
    page = AppTest.from_file(str(launch.ENTRY), default_timeout=60).run()
    assert not page.exception
    assert page.header[0].value == "Leaderboard"


def test_the_launcher_binds_to_this_machine_and_sends_nothing_home(tmp_path: Path):
    from lcbench.app import launch

    arguments = launch.arguments()
    assert "--server.address=localhost" in arguments
    assert "--browser.gatherUsageStats=false" in arguments
    assert launch.environment([]) == {}
    assert launch.environment([tmp_path]) == {"LCBENCH_RESULTS": str(tmp_path.resolve())}
