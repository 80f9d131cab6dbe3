"""Where methods, suites, the app and results lie, in a checkout and in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """The root of the source checkout this package runs from, or None when it runs from a wheel."""
    root = PACKAGE.parent
    is_checkout = (root / "pyproject.toml").is_file() and (root / "methods").is_dir()
    return root if is_checkout else None


def checkout_folder(name: str) -> list[str]:
    """What a plug-in package adds to its `__path__`: the top-level folder, or nothing in a wheel."""
    root = checkout()
    return [str(root / name)] if root else []


def plugin_folder(name: str) -> Path:
    """The folder that holds the files of `methods`, `suites`, `suites/tasks` or `app`."""
    return (checkout() or PACKAGE) / name


def published_results() -> Path:
    """The submitted results that came with this copy of lcbench."""
    return (checkout() or PACKAGE) / "results" / "published"


def local_results() -> Path:
    """Where a run writes unless told otherwise: the checkout's, else the current folder's."""
    return (checkout() or Path.cwd()) / "results" / "local"
