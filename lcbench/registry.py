"""Methods, tasks and suites by name: names are file names, and nothing is imported to list them.

A plug-in is one file; its stem, with `-` for `_`, is its name. Folders named in `LCBENCH_PATH` are
searched after lcbench's own; other installed packages add theirs through the entry-point groups
`lcbench.methods`, `lcbench.tasks` and `lcbench.suites`, whose value is the module.
"""

import ast
import functools
import importlib
import importlib.util
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from lcbench.config import UsageError, did_you_mean, digest
from lcbench.paths import plugin_folders

if TYPE_CHECKING:
    from lcbench.method import MethodSpec
    from lcbench.suite import Suite
    from lcbench.task import TaskSpec

T = TypeVar("T")
Kind = Literal["method", "task", "suite"]


class _Place(NamedTuple):
    folder: str
    module: str
    declaration: str
    """The one name a plug-in file must bind."""


_PLACES: dict[Kind, _Place] = {
    "method": _Place("methods", "lcbench.methods", "METHOD"),
    "task": _Place("suites/tasks", "lcbench.suites.tasks", "TASK"),
    "suite": _Place("suites", "lcbench.suites", "SUITE"),
}


class PluginError(Exception):
    """A plug-in file that cannot be used: it does not import, or binds no declaration."""


class Source(NamedTuple):
    """Where a plug-in lies."""

    name: str
    module: str
    path: Path


class Headline(NamedTuple):
    """What a listing tells of a plug-in, read from its source without importing it."""

    summary: str
    """First line of the module's docstring."""
    fields: dict[str, Any]
    """The literal keyword arguments of its declaration: title, family, version, ..."""


def sources(kind: Kind) -> dict[str, Source]:
    """Every plug-in of one kind, by name, in alphabetical order.

    Raises:
        PluginError: Two plug-ins that claim one name.
    """
    place = _PLACES[kind]
    found: dict[str, Source] = {}
    for folder in plugin_folders(place.folder):
        for path in sorted(folder.glob("*.py")):
            if path.stem.startswith("_"):
                continue
            name = path.stem.replace("_", "-")
            if name in found:
                first = found[name].path
                raise PluginError(f"{kind} {name!r} lies in two folders: {first} and {path}")
            found[name] = Source(name, f"{place.module}.{path.stem}", path)
    for entry in _entry_points(place.module.replace("suites.tasks", "tasks")):
        if entry.name in found:
            first = found[entry.name].path.name
            raise PluginError(f"{kind} {entry.name!r} of {entry.value} has the name of {first}")
        found[entry.name] = Source(entry.name, entry.value, _installed(kind, entry))
    return dict(sorted(found.items()))


@functools.cache
def _entry_points(group: str) -> EntryPoints:
    """Entry points of the installed packages, which takes longest of a listing, once a process."""
    return entry_points(group=group)


def _installed(kind: Kind, entry: EntryPoint) -> Path:
    """Where the module an entry point names lies."""
    try:
        spec = importlib.util.find_spec(entry.value)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise PluginError(f"{kind} {entry.name!r}: module {entry.value} is not installed")
    return Path(spec.origin)


def source(kind: Kind, name: str) -> Source:
    """The plug-in of that name.

    Raises:
        UsageError: No such plug-in; the message names the nearest.
    """
    known = sources(kind)
    if name not in known:
        raise UsageError(f"no {kind} {name!r}; {did_you_mean(name, known)}")
    return known[name]


def source_hash(kind: Kind, name: str) -> str:
    """Hash of a plug-in's source text, the same with either line ending."""
    return digest(source(kind, name).path.read_bytes().replace(b"\r\n", b"\n"))


def headline(kind: Kind, name: str) -> Headline:
    """What a listing tells of a plug-in; a file that does not parse tells of its error."""
    try:
        tree = ast.parse(source(kind, name).path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        return Headline(f"cannot be read: {type(error).__name__}: {error}", {})
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    fields: dict[str, Any] = {}
    for node in tree.body:
        if not (isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call)):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(getattr(t, "id", None) == _PLACES[kind].declaration for t in targets):
            for keyword in node.value.keywords:
                if keyword.arg and isinstance(keyword.value, ast.Constant):
                    fields[keyword.arg] = keyword.value.value
    return Headline(summary, fields)


def method_names() -> list[str]:
    """Names of all methods."""
    return list(sources("method"))


def task_names() -> list[str]:
    """Names of all tasks."""
    return list(sources("task"))


def suite_names() -> list[str]:
    """Names of all suites."""
    return list(sources("suite"))


def load_method(name: str) -> "MethodSpec":
    """Import one method's file and give its `METHOD`.

    Raises:
        UsageError: No such method.
        PluginError: A file that does not import or declares none.
    """
    from lcbench.method import MethodSpec

    return _load("method", name, MethodSpec)


def load_task(name: str) -> "TaskSpec":
    """Import one task's file and give its `TASK`; raises as `load_method`."""
    from lcbench.task import TaskSpec

    return _load("task", name, TaskSpec)


def load_suite(name: str) -> "Suite":
    """Import one suite's file and give its `SUITE`; raises as `load_method`."""
    from lcbench.suite import Suite

    return _load("suite", name, Suite)


def _load(kind: Kind, name: str, expected: type[T]) -> T:
    found = source(kind, name)
    declaration = _PLACES[kind].declaration
    try:
        module = importlib.import_module(found.module)
    except Exception as error:
        line = _line_in(error, found.path)
        where = f"{found.path.name}, line {line}" if line else found.path.name
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise PluginError(
            f"{kind} {name!r} does not import: {type(error).__name__}: {reason} ({where})"
        ) from error
    spec = getattr(module, declaration, None)
    if not isinstance(spec, expected):
        raise PluginError(
            f"{kind} {name!r}: {found.path.name} must end in"
            f" `{declaration} = {expected.__name__}(...)`, found {type(spec).__name__}"
        )
    return spec


def _line_in(error: BaseException, path: Path) -> int | None:
    """The last line of `path` that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    line = None
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
