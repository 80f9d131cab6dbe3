"""What is shown of the methods is what they declare and what was measured of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lcbench import gallery, registry
from lcbench.cli import main
from lcbench.families import FAMILIES, by_family
from lcbench.gallery import Sheet, read_sheet

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sheets() -> list[Sheet]:
    return gallery.read_sheets()


@pytest.mark.parametrize(
    ("path", "write"),
    [("docs/methods.md", gallery.as_markdown), ("app/methods.json", gallery.as_json)],
    ids=["docs", "app"],
)
def test_what_is_kept_of_the_methods_is_current(path: str, write: Any, sheets: list[Sheet]) -> None:
    kept = (ROOT / path).read_text(encoding="utf-8")
    assert kept == write(sheets) + "\n", f"{path} is out of date: run `{gallery.REGENERATE}`"


def test_every_method_is_shown_once_and_in_its_family(sheets: list[Sheet]) -> None:
    assert sorted(sheet.name for sheet in sheets) == registry.method_names()
    families = [sheet.family for sheet in sheets]
    assert list(dict.fromkeys(families)) == list(by_family(registry.method_names()))
    text = gallery.as_markdown(sheets)
    for sheet in sheets:
        assert text.count(f"\n### {sheet.name}\n") == 1
        assert f"(https://arxiv.org/abs/{sheet.paper['arxiv']})" in text


def test_the_picture_is_the_measured_band() -> None:
    (picture,) = read_sheet("sliding-window", "window=3").pictures
    assert picture.config == "window=3"
    seen = np.array([[mark == "#" for mark in row] for row in picture.rows])
    distance = np.subtract.outer(np.arange(32), np.arange(32))
    np.testing.assert_array_equal(seen, (distance >= 0) & (distance < 3))


def test_a_card_tells_what_a_method_claims_at_the_configuration_asked_for() -> None:
    done = CliRunner().invoke(main, ["methods", "sliding-window:window=300"])
    assert done.exit_code == 0, done.output
    for words in (
        *("sliding-window: Sliding window", "arXiv:2004.05150", "softmax_j(q_i . k_j / sqrt K)"),
        *("reach       299 tokens in one layer", "window=300  (int)", "time T^1, memory T^1"),
        *("Keys a query sees, itself included", "window=8", "│█▄"),
    ):
        assert words in done.output


def test_a_method_made_of_parts_shows_each_part_once(sheets: list[Sheet]) -> None:
    sheet = read_sheet("hybrid", "pattern=sliding-window:window=4*2+vanilla+recurrence")
    assert sheet.layers == ["sliding-window:window=4"] * 2 + ["vanilla", "recurrence"]
    assert [(p.part, p.config) for p in sheet.pictures] == [
        ("sliding-window:window=4", "window=4"),
        ("vanilla", ""),
        ("recurrence", "segment=8,memory=8"),
    ]
    text = gallery.as_text(sheet)
    assert "layers      sliding-window:window=4, sliding-window:window=4, vanilla, recur" in text
    assert max(map(len, text.splitlines())) <= 100


def test_json_holds_what_the_card_holds(sheets: list[Sheet]) -> None:
    done = CliRunner().invoke(main, ["methods", "recurrence", "--format", "json"])
    (told,) = json.loads(done.output)
    (sheet,) = (sheet for sheet in sheets if sheet.name == "recurrence")
    assert told["reach"] == sheet.reach == 127
    assert told["cost"] == {"time": 1.0, "memory": 1.0, "state": 0.0}
    assert told["facts"]["reach"] == "127 tokens in one layer"
    assert told["config"][0]["name"] == "segment"
    assert told["pictures"][0]["rows"] == sheet.pictures[0].rows


def test_the_listing_is_by_family_and_tells_of_a_file_that_cannot_be_read(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / "methods" / "torn.py").write_text("def broken(:\n", encoding="utf-8")
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))
    lines = CliRunner().invoke(main, ["methods"]).output.splitlines()
    told = [line for line in lines if line and not line.startswith(" ")]
    families = [line.partition(":")[0] for line in told[:-1]]
    assert families[-1] == "other"
    assert families[:-1] == [family for family in FAMILIES if family in families]
    assert lines[lines.index(told[-2]) + 1].startswith("  torn")
    assert "cannot be read: SyntaxError" in "".join(lines)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sliding-windw", "did you mean 'sliding-window'"),
        ("sliding-window:windo=3", "did you mean 'window'"),
        ("hybrid:pattern=vanila", "did you mean 'vanilla'"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(name: str, words: str) -> None:
    done = CliRunner().invoke(main, ["methods", name])
    assert done.exit_code == 2
    assert words in done.stderr.replace("\n", " ")
