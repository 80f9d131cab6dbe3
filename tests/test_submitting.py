"""`lcbench submit`: the newest rows of every planned cell, whatever they say, in one file."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from lcbench import store, submitting
from lcbench.config import UsageError

Checkout = Any
SUBMIT = ("submit", "my-window")


def published(checkout: Checkout) -> list[Path]:
    return sorted((checkout.root / "results" / "published").rglob("*.parquet"))


def test_a_submission_is_valid_and_is_made_once(measured: Checkout) -> None:
    done = measured.lcbench(*SUBMIT, "--as", "@some-one")
    assert done.returncode == 0, done.stderr
    (path,) = published(measured)
    frame = store.read_rows([path]).frame
    assert set(frame["method"]) == {"my-window", "vanilla"}
    assert set(frame["submitter"]) == {"some-one"}
    assert path.name.startswith(f"{frame['started_at'].max():%Y-%m-%d}-")
    assert "my-window (new)" in done.stdout
    before = path.read_bytes(), path.stat().st_mtime_ns, measured.git("status", "--porcelain")
    again = measured.lcbench(*SUBMIT, "--as", "some-one")
    assert again.returncode == 0, again.stderr
    assert "There already:" in again.stdout
    assert published(measured) == [path]
    after = path.read_bytes(), path.stat().st_mtime_ns, measured.git("status", "--porcelain")
    assert after == before
    for arguments in ([str(path)], ["--changed-since", "main"]):
        valid = measured.lcbench("validate", *arguments)
        assert valid.returncode == 0, valid.stdout


def test_the_printed_commands_make_a_commit_of_two_files(measured: Checkout) -> None:
    done = measured.lcbench(*SUBMIT)
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("  git ")]
    assert [command[1] for command in commands] == ["switch", "add", "commit", "push"]
    for command in commands[:3]:
        measured.git(*command[1:])
    (path,) = published(measured)
    assert measured.git("show", "--name-only", "--format=%s").split("\n\n") == [
        "my-window: results of smoke on cpu",
        f"methods/my_window.py\n{path.relative_to(measured.root)}\n",
    ]
    assert "There already:" in measured.lcbench(*SUBMIT).stdout
    create = next(line for line in done.stdout.splitlines() if line.startswith("  gh "))
    body = (measured.root / shlex.split(create)[-1]).read_text(encoding="utf-8")
    assert "`lcbench run --method vanilla,my-window --suite smoke --device cpu`" in body
    assert measured.git("status", "--porcelain") == ""


def test_marked_places_are_refused(measured: Checkout) -> None:
    measured.lcbench("new", "unfinished")
    done = measured.lcbench("submit", "unfinished")
    assert done.returncode == 2
    assert "still has places marked EDIT:" in done.stderr
    assert "Still marked EDIT: lines 3, " in measured.lcbench("check", "unfinished").stdout
    assert published(measured) == []


def test_an_edited_method_is_refused_with_the_command_that_measures_it(measured: Checkout) -> None:
    path = measured.root / "methods" / "my_window.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    done = measured.lcbench(*SUBMIT)
    assert done.returncode == 2
    assert "'my-window' was edited since it was measured" in done.stderr
    command = re.search(r"the 5 cells missing: lcbench (run .*)", " ".join(done.stderr.split()))
    assert command, done.stderr
    assert measured.lcbench(*shlex.split(command[1])).returncode == 0
    assert measured.lcbench(*SUBMIT).returncode == 0


def test_part_of_a_plan_is_refused_by_the_names_of_what_is_missing(measured: Checkout) -> None:
    measured.add_method("mine")
    run = ("run", "--suite", "smoke", "--device=cpu", "-m", "vanilla,mine", "--task", "mqar")
    assert measured.lcbench(*run).returncode == 0
    done = measured.lcbench("submit", "mine")
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "not measured: mine · code-lm · seed 0; mine · prefill at 128; " in told
    assert "the 4 cells missing: lcbench run --method vanilla,mine --suite smoke" in told
    assert published(measured) == []


def test_failures_are_submitted_as_failures(measured: Checkout) -> None:
    start = "        causal = self.shape.causal\n"
    measured.add_method("broken", **{start: "        raise RuntimeError('on purpose')\n"})
    measured.lcbench("run", "--suite", "smoke", "--device=cpu", "-m", "vanilla,broken")
    done = measured.lcbench("submit", "broken")
    assert done.returncode == 0, done.stderr
    frame = store.read_rows(published(measured)).frame
    own = frame[frame["method"] == "broken"]
    assert len(own) == 7
    assert set(own["status"]) == {"error"}
    assert "(7 error)" in done.stdout


def test_of_several_measurements_the_newest_counts_and_more_seeds_are_taken(
    measured: Checkout,
) -> None:
    run = ("run", "--suite", "smoke", "--device=cpu", "-m", "vanilla,my-window", "--fresh")
    for seeds in ("2", "1"):
        assert measured.lcbench(*run, "--seeds", seeds).returncode == 0
    done = measured.lcbench(*SUBMIT)
    assert done.returncode == 0
    assert "--device cpu --seeds 2`" in done.stdout
    frame = store.read_rows(published(measured)).frame
    quality = frame[frame["kind"] == "quality"]
    assert set(quality["seed"]) == {0, 1}
    runs = quality.groupby("seed")["run_id"].unique()
    assert all(len(names) == 1 for names in runs)
    assert runs[0][0] > runs[1][0]


def test_edited_sources_are_refused(measured: Checkout) -> None:
    path = measured.root / "methods" / "vanilla.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    done = measured.lcbench(*SUBMIT)
    assert done.returncode == 2
    assert "methods/vanilla.py differ from what is committed" in " ".join(done.stderr.split())


def test_rows_that_break_a_rule_are_not_written(measured: Checkout) -> None:
    (path,) = (measured.root / "results" / "local" / "smoke").glob("*.parquet")
    rows = store.read_table([path]).table.to_pylist()
    for row in rows:
        if row["kind"] == "quality":
            row["score"] = row["score"] / 2
    path.unlink()
    store.seal(rows, path.parent, rows[0]["started_at"].date())
    done = measured.lcbench(*SUBMIT)
    assert done.returncode == 1
    assert re.search(r"^score, row \d+: ", done.stderr, re.MULTILINE)
    assert published(measured) == []


def test_what_was_never_measured_is_told_with_the_command(measured: Checkout) -> None:
    done = measured.lcbench("submit", "vanilla", "--suite", "quick")
    assert done.returncode == 2
    assert "measure it: lcbench run --method vanilla --suite quick" in " ".join(done.stderr.split())


def test_the_same_rows_under_another_handle_are_refused(measured: Checkout) -> None:
    assert measured.lcbench(*SUBMIT).returncode == 0
    done = measured.lcbench(*SUBMIT, "--as", "someone")
    assert done.returncode == 2
    assert "published already" in done.stderr
    assert len(published(measured)) == 1


@pytest.mark.parametrize("text", ["a b", "-a", "a--b", "$(id)", "x" * 40, "", "é"])
def test_what_is_no_handle_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--as takes a GitHub handle"):
        submitting.read_handle(text)


def test_without_a_repository_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "checkout", lambda: None)
    with pytest.raises(UsageError, match="clone it"):
        submitting.refuse_unfinished("vanilla")
