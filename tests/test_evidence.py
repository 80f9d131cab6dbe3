"""The tables that results of a suite are told by."""

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from lcbench import evidence, store
from lcbench.cli import main

CONFIGS = {
    "mqar": '{"noise":false,"num_pairs":2,"power_a":1.0,"vocab_size":16}',
    "code-lm": "{}",
}


def row(task: str, method: str, seed: int, score: float, **fields: object) -> store.Row:
    bits = task == "code-lm"
    distances = (
        {} if bits else {"score_by_distance": [None, 1.0, 0.5], "count_by_distance": [0, 4, 12]}
    )
    shared = {
        "run_id": "r", "cell_id": f"{task}{method}{seed}", "kind": "quality", "suite": "smoke",
        "suite_version": 1, "task": task, "task_version": 1, "task_config": CONFIGS[task],
        "method": method, "config": '{"window":4}' if method == "window" else "{}",
        "train_context": 512, "context": 512, "seed": seed, "dtype": "float32", "status": "ok",
        "metric": "bits_per_byte" if bits else "accuracy", "score": score, "score_se": 0.0,
        "floor": 4.0 if bits else 0.2, "ceiling": 0.0 if bits else 1.0, "device_kind": "cpu",
        "started_at": pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime(), "method_hash": method,
    }  # fmt: skip
    return shared | distances | fields


def frame(*rows: store.Row) -> pd.DataFrame:
    return store.to_table(rows).to_pandas()


def line(text: str, start: str) -> str:
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return found


@pytest.fixture(scope="module")
def told() -> str:
    recall = [(1.0, 0.3), (1.0, 0.3), (0.96, 0.3), (1.0, 0.32), (1.0, 0.28)]
    text = [(2.0, 2.1), (2.4, 2.5), (1.8, 1.9), (2.2, 2.31), (2.0, 2.09)]
    return evidence.report(
        frame(
            *(
                row(task, method, seed, score)
                for task, scores in (("mqar", recall), ("code-lm", text))
                for seed, both in enumerate(scores)
                for method, score in zip(("vanilla", "window"), both, strict=True)
            )
        ),
        "smoke",
    )


def test_scores_stand_beside_their_floor_in_their_own_unit(told: str) -> None:
    # Standard errors of five seeds: 0.008 and 0.0063 of accuracy, 0.102 bits each.
    assert line(told, "| mqar at 512*") == "| mqar at 512* | 20.0 % | 99.2 ± 1.6 % | 30.0 ± 1.2 % |"
    assert "| 4.000 bits/byte | 2.080 ± 0.200 |" in line(told, "| code-lm at 512*")


def test_the_share_of_seeds_that_solved_it_is_told(told: str) -> None:
    assert line(told, "| mqar, vanilla") == "| mqar, vanilla | 1.000 | 0.950 to 1.000 | 5 of 5 |"
    assert line(told, "| mqar, window").endswith("| 0.125 | 0.100 to 0.150 | 0 of 5 |")


def test_texts_that_differ_more_than_methods_do_still_tell_them_apart(told: str) -> None:
    after = told.partition("## Told apart")[2].partition("##")[0]
    # 0.1 bits apart, by 0.00707 within a seed.
    assert line(after, "| code-lm") == "| code-lm | **14.1** |"


def test_an_order_that_every_seed_gives_is_full_concordance(told: str) -> None:
    after = told.partition("## Order of methods")[2].partition("##")[0]
    assert line(after, "| code-lm | 1.00") == "| code-lm | 1.00 | 5 | vanilla > window |"


def test_methods_are_ordered_below_the_floor_too() -> None:
    rows = [
        row("mqar", method, seed, score)
        for seed in range(5)
        # The floor is 0.2: of three methods two are below it.
        for method, score in (("vanilla", 0.9), ("blind", 0.05), ("dim", 0.1))
    ]
    told = evidence.report(frame(*rows), "smoke")
    after = told.partition("## Order of methods")[2].partition("##")[0]
    assert line(after, "| mqar | 1.00") == "| mqar | 1.00 | 5 | vanilla > dim > blind |"


def test_a_window_is_held_against_what_lies_within_it(told: str) -> None:
    assert line(told, "| window | 100") == "| window | 100 | 50 |"
    assert (
        "`window` of window 4 on mqar: 25.0 % of the answers lie less than 4 tokens back, 62.5 %"
        in told
    )


def test_what_was_not_tried_is_told(told: str) -> None:
    assert "- `mqar`: pass: 5 of 5 seeds solved it" in told
    rows = [row("mqar", "vanilla", 0, 1.0)]
    text = evidence.report(frame(*rows), "smoke")
    assert "- `code-lm`: not judged, its oracle was not tried" in text
    assert evidence.report(frame(row("mqar", "vanilla", 0, 1.0, device_kind="cuda")), "smoke") == (
        "No results of what `smoke` asks on the device it is meant for."
    )


def test_the_command_prints_it_and_exits_by_the_gate(tmp_path: Path) -> None:
    rows = [row("mqar", "vanilla", seed, 1.0) for seed in range(5)]
    store.write_rows(tmp_path / "rows.parquet", rows)
    arguments = ["suites", "smoke", "--gate", "--format", "markdown", "--results", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, "one of the two tasks was not tried"
    assert done.stdout.startswith("# `smoke`, version 1")
    assert "- `mqar`: pass: 5 of 5 seeds solved it" in done.stdout


def test_rows_of_an_older_version_are_not_told_of() -> None:
    older = [row("mqar", "retired", seed, 0.5) for seed in range(5)]
    newer = [row("mqar", "vanilla", seed, 1.0, suite_version=2) for seed in range(3)]
    text = evidence.report(frame(*older, *newer), "smoke")
    assert text.startswith("# `smoke`, version 2")
    assert "from 3 rows of 1 methods and up to 3 seeds" in text
    assert "retired" not in text


def test_a_method_in_one_seed_neither_crowds_nor_shortens_what_is_said_of_the_others() -> None:
    rows = [
        row("mqar", method, seed, score + 0.01 * seed)
        for method, score in (("vanilla", 0.9), ("window", 0.3))
        for seed in range(5)
    ]
    text = evidence.report(frame(*rows, row("mqar", "newcomer", 0, 0.6)), "smoke")
    assert "newcomer" in text.partition("## Seeds")[2].partition("##")[0]
    apart = text.partition("## Told apart")[2].partition("## Agreement")[0]
    assert "newcomer" not in apart
    assert line(apart, "| mqar | 1.00").endswith("| 5 | vanilla > window |")
