"""What a pull request may change, as git tells it; and the command that says so."""

import copy
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lcbench.config import UsageError
from lcbench.submission import check_changes, read_changes

RESULT = "results/published/smoke/sliding-window"


class Checkout(NamedTuple):
    """A repository with one commit, and an honest file of results to put into it."""

    root: Path
    content: bytes
    name: str

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(self.root), *identity, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def write(self, path: str, content: bytes = b"x") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def submit(self) -> Path:
        return self.write(f"results/published/{self.name}", self.content)


@pytest.fixture
def checkout(tmp_path: Path, honest_rows: list[dict[str, Any]], seal: Any) -> Checkout:
    content, name = seal(copy.deepcopy(honest_rows))
    made = Checkout(tmp_path / "checkout", content, name)
    made.write("README.md", b"hello\n")
    made.write("lcbench/train.py", b"steps = 1\n")
    made.write("methods/vanilla.py", b"")
    made.write("results/published/smoke/vanilla/2026-01-01-000000000000.parquet")
    made.git("init", "-q")
    made.git("add", "-A")
    made.git("commit", "-qm", "Start")
    # The method's own file is the installed one, so that its hash is that of the rows.
    (made.root / "methods" / "vanilla.py").unlink()
    made.git("commit", "-qam", "Methods come from the package")
    made.git("branch", "start")
    return made


def commit(checkout: Checkout) -> None:
    checkout.git("add", "-A")
    checkout.git("commit", "-qm", "Submit")


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_honest_pull_request_breaks_no_rule(checkout: Checkout, is_committed: bool) -> None:
    checkout.submit()
    if is_committed:
        commit(checkout)
    assert check_changes("start", checkout.root) == []


def test_what_was_added_upstream_meanwhile_is_not_its_own(checkout: Checkout) -> None:
    checkout.git("checkout", "-qb", "mine")
    checkout.submit()
    commit(checkout)
    checkout.git("checkout", "-q", "start")
    checkout.write("lcbench/train.py", b"steps = 2\n")
    commit(checkout)
    checkout.git("checkout", "-q", "mine")
    assert check_changes("start", checkout.root) == []


def test_a_change_without_results_is_nobodys_submission(checkout: Checkout) -> None:
    checkout.write("lcbench/train.py", b"steps = 2\n")
    assert check_changes("start", checkout.root) == []


def edit_core(checkout: Checkout) -> None:
    checkout.write("lcbench/train.py", b"steps = 1000\n")


def edit_published(checkout: Checkout) -> None:
    checkout.write("results/published/smoke/vanilla/2026-01-01-000000000000.parquet", b"y")


def remove_published(checkout: Checkout) -> None:
    (checkout.root / "results/published/smoke/vanilla/2026-01-01-000000000000.parquet").unlink()


def link_out(checkout: Checkout) -> None:
    link = checkout.root / RESULT / "2026-01-01-000000000000.parquet"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/etc/passwd")


def link_folder(checkout: Checkout) -> None:
    link = checkout.root / "results/published/quick"
    link.symlink_to("/etc")


def make_runnable(checkout: Checkout) -> None:
    checkout.submit().chmod(0o755)


def bring_another_method(checkout: Checkout) -> None:
    checkout.write("methods/somebody_elses.py")


def bring_two_folders(checkout: Checkout) -> None:
    checkout.write("results/published/smoke/retention/2026-01-01-000000000000.parquet")


def bring_a_workflow(checkout: Checkout) -> None:
    checkout.write(".github/workflows/mine.yml")


def bring_a_note(checkout: Checkout) -> None:
    checkout.write(f"{RESULT}/note.txt")


def name_like_a_command(checkout: Checkout) -> None:
    checkout.write(f"{RESULT}/$(touch pwned)\n`touch pwned`;--output=pwned.parquet")


BAD_CHANGES: dict[str, tuple[str, Callable[[Checkout], None]]] = {
    "the harness edited": ("own-paths", edit_core),
    "a published file edited": ("own-paths", edit_published),
    "a published file taken away": ("own-paths", remove_published),
    "a workflow added": ("own-paths", bring_a_workflow),
    "another method's file": ("own-paths", bring_another_method),
    "results of two methods": ("own-paths", bring_two_folders),
    "a link": ("regular-file", link_out),
    "a link in place of a folder": ("regular-file", link_folder),
    "a file that can be run": ("regular-file", make_runnable),
    "a note beside the results": ("path", bring_a_note),
    "a name that is a command": ("path", name_like_a_command),
}


@pytest.mark.parametrize("case", BAD_CHANGES)
def test_a_bad_pull_request_is_caught_by_its_rule(case: str, checkout: Checkout) -> None:
    rule, change = BAD_CHANGES[case]
    checkout.submit()
    change(checkout)
    commit(checkout)
    findings = check_changes("start", checkout.root)
    assert rule in {finding.rule for finding in findings}, findings
    assert all(finding.path.isprintable() for finding in findings)
    assert not list(checkout.root.rglob("*pwned")) or case == "a name that is a command"
    assert not (checkout.root / "pwned").exists()


@pytest.mark.parametrize("ref", ["no-such-branch", "--output=pwned", "-h", "start;touch pwned"])
def test_a_revision_that_is_none_is_refused(ref: str, checkout: Checkout) -> None:
    with pytest.raises(UsageError, match="no revision"):
        list(read_changes(ref, checkout.root))
    assert not (checkout.root / "pwned").exists()


def test_the_command_tells_all_in_every_format(checkout: Checkout, lcbench: Any) -> None:
    checkout.submit()
    where = ("--changed-since", "start", "--root", str(checkout.root))
    done = lcbench("validate", *where)
    assert done.returncode == 0, done.stderr
    assert "1 file of results" in done.stdout
    assert "No fault" in done.stdout
    bring_a_workflow(checkout)
    checkout.write(f"{RESULT}/<b>|x|.parquet")
    as_text, as_table = (lcbench("validate", *where, "--format", f) for f in ("text", "markdown"))
    assert as_text.returncode == as_table.returncode == 1
    assert "own-paths" in as_text.stdout
    assert "path" in as_text.stdout
    assert "<b>" not in as_table.stdout
    assert len({line.count("|") for line in as_table.stdout.splitlines() if "|" in line}) == 1
    found = json.loads(lcbench("validate", *where, "--format", "json").stdout)["findings"]
    assert {"own-paths", "path"} <= {finding["rule"] for finding in found}


def test_the_command_validates_a_file_by_name(
    checkout: Checkout, lcbench: Any, tmp_path: Path
) -> None:
    path = checkout.submit()
    assert lcbench("validate", str(path)).returncode == 0
    os.truncate(path, 9_000)
    done = lcbench("validate", str(path))
    assert done.returncode == 1
    assert "parquet" in done.stdout
    missing = lcbench("validate", str(tmp_path / "no-such-file"))
    assert missing.returncode == 2
    assert "does not exist" in missing.stderr


def test_the_command_prints_every_rule(lcbench: Any) -> None:
    printed = lcbench("validate", "--rules").stdout
    assert "digest" in printed
    assert "roofline" in printed
