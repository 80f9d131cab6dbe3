"""Where methods, suites, the app and results lie: in a checkout, a wheel, folders of one's own."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
EXTRA_FOLDERS = "LCBENCH_PATH"
"""Environment variable naming folders that hold `methods/`, `suites/` and `suites/tasks/` too."""


def checkout() -> Path | None:
    """The root of the source checkout this package runs from, or None when it runs from a wheel."""
    root = PACKAGE.parent
    is_checkout = (root / "pyproject.toml").is_file() and (root / "methods").is_dir()
    return root if is_checkout else None


def plugin_folders(name: str) -> list[Path]:
    """The folders that hold the files of `methods` or `suites/tasks`, say, lcbench's own first."""
    extra = [Path(part) for part in os.environ.get(EXTRA_FOLDERS, "").split(os.pathsep) if part]
    roots = dict.fromkeys(root.resolve() for root in (checkout() or PACKAGE, *extra))
    return [root / name for root in roots]


def package_path(name: str) -> list[str]:
    """What the package `lcbench.<name>` adds to its `__path__` beside its own folder."""
    own = str(PACKAGE / name)
    return [path for folder in plugin_folders(name) if (path := str(folder)) != own]


def published_results() -> Path:
    """The submitted results that came with this copy of lcbench."""
    return (checkout() or PACKAGE) / "results" / "published"


def local_results() -> Path:
    """Where a run writes unless told otherwise: the checkout's, else the current folder's."""
    return (checkout() or Path.cwd()) / "results" / "local"
