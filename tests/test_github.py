"""The workflows: nothing of a stranger's reaches a secret, a token that writes, or a shell."""

import re
from pathlib import Path

import pytest

GITHUB = Path(__file__).resolve().parents[1] / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


def workflow_text(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_reads_and_no_more(path: Path) -> None:
    text = workflow_text(path)
    assert "\npermissions:\n  contents: read\n" in text
    assert text.count("permissions:") == 1
    assert not re.search(r"pull_request_target|workflow_run|secrets\b|GITHUB_TOKEN|write\b", text)
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses:\s*(\S+)", workflow_text(path))
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_expression_is_pasted_into_a_script(path: Path) -> None:
    scripts = re.findall(r"^ *(?:- )?run: *(.*(?:\n {10,}.*)*)", workflow_text(path), re.MULTILINE)
    assert scripts
    assert [script for script in scripts if "${{" in script] == []


def test_the_pull_requests_workflow_does_what_make_does() -> None:
    text = workflow_text(GITHUB / "workflows" / "pull-request.yml")
    assert re.search(r"^on:\n  pull_request:\n\n", text, re.MULTILINE)
    assert "run: make pr-check" in text
    makefile = (GITHUB.parent / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.partition("\npr-check:")[2].partition("\n\n")[0]
    assert '--changed-since "$$BASE"' in recipe
    assert "$(BASE)" not in makefile


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.stem)
def test_every_file_is_yaml_with_what_github_asks(path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "workflows":
        assert all("timeout-minutes" in job for job in content["jobs"].values())
    elif path.stem != "config":
        ids = [part["id"] for part in content["body"] if "id" in part]
        assert len(set(ids)) == len(ids) >= 3
