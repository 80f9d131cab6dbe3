"""The command beside a number plans that number's cell, and a shell reads it as it was written."""

import dataclasses
import json
import shlex
from typing import Any

import pytest
from click.testing import CliRunner

from lcbench import terminal
from lcbench.cli import main
from lcbench.reproduce import COLUMNS, run_command
from lcbench.suite import Cell

ROW: dict[str, Any] = {
    **dict.fromkeys(COLUMNS),
    "kind": "prefill",
    "suite": "quick",
    "method": "vanilla",
    "config": "{}",
    "context": 512,
    "device_kind": "cpu",
}


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells of the last dry run."""
    cells: list[Cell] = []

    def keep(plan: list[Cell], *_: object) -> None:
        cells[:] = plan

    monkeypatch.setattr(terminal, "show_plan", keep)
    return cells


def dry_run(words: list[str]) -> None:
    done = CliRunner().invoke(main, [*words, "--dry-run"], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def row_of(cell: Cell, context: int) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(cell).items() if name in COLUMNS} | {
        "context": context
    }


@pytest.mark.parametrize(
    "words",
    [
        ["--suite", "smoke", "--method", "sliding-window:window=7"],
        ["--suite", "smoke", "--method", "hybrid:pattern=sliding-window:window=4*2+vanilla"],
        ["--suite", "quick", "--method", "vanilla", "--task", "mqar:num_pairs=5,noise=true",
         "--context", "512,2048", "--seed", "3", "--dtype", "bfloat16", "--deterministic"],
    ],
    ids=["config", "pattern", "part of a task"],
)  # fmt: skip
def test_each_cells_command_plans_that_cell_alone(words: list[str], planned: list[Cell]) -> None:
    dry_run(["run", "--device", "cpu", *words])
    cells = list(planned)
    kinds = {cell.kind: cell for cell in cells}
    assert len(kinds) == (1 if "--task" in words else 4)
    for cell in kinds.values():
        for context in cell.contexts[-1:]:
            program, *arguments = shlex.split(run_command(row_of(cell, context)))
            assert program == "lcbench"
            dry_run(arguments)
            assert [found.cell_id for found in planned] == [cell.cell_id]


def test_a_name_from_a_file_is_one_word_to_a_shell() -> None:
    name = "m; rm -rf $HOME `x`\n'"
    row = ROW | {"method": name, "config": json.dumps({"note": "$(x) | y"}), "suite": "a b"}
    words = shlex.split(run_command(row))
    assert words[words.index("--method") + 1] == f"{name}:note=$(x) | y"
    assert words[words.index("--suite") + 1] == "a b"


def test_values_are_written_as_the_command_line_reads_them() -> None:
    row = ROW | {"config": '{"a":true,"b":null,"c":0.5,"d":"x"}'}
    assert "vanilla:a=true,b=none,c=0.5,d=x" in run_command(row)


def test_a_row_older_than_recipes_is_told_by_its_context() -> None:
    assert run_command(ROW).endswith("--context 512 --device cpu")


@pytest.mark.parametrize("text", ["[1]", "{", "7"])
def test_a_config_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON object|Expecting"):
        run_command(ROW | {"config": text})
