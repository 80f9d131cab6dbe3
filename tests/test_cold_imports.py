"""Help and listings start at once: neither torch nor pandas is imported for them."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "pandas", "pyarrow", "numpy", "streamlit")


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["methods"],
        ["tasks"],
        ["suites"],
        ["leaderboard", "--help"],
        ["status", "--help"],
        ["merge", "--help"],
        ["validate", "--help"],
        ["validate", "--rules"],
    ],
    ids=" ".join,
)
def test_help_and_listings_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"from lcbench.cli import main\nmain({arguments!r}, standalone_mode=False)"
    heavy = modules_after(code) & set(HEAVY)
    assert not heavy, f"lcbench {' '.join(arguments)} imports {heavy}"


@pytest.mark.parametrize(
    "module", ["store", "ranking", "runner", "terminal", "isolation", "submission"]
)
def test_the_parent_never_imports_torch(module: str) -> None:
    assert "torch" not in modules_after(f"import lcbench.{module}")
