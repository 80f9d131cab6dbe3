"""What the rules for a submission need to know of the source tree.

Methods are read as text: their hashes and the fields of their configs come from their source.
Suites and tasks are imported from the lcbench that validates, not from the tree that is looked at.
The one method file that is run is one made of parts, in a child process, since only it can tell
which parts it has.
"""

import ast
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lcbench import registry, runner, store
from lcbench.config import UsageError, digest
from lcbench.registry import PluginError
from lcbench.submission_pages import read_bounded, read_regular
from lcbench.submission_rules import Findings
from lcbench.suite import MethodCard, Suite, TaskCard
from lcbench.task import Task, TaskSpec

Key = tuple[object, ...]
"""A row's values of `store.ROW_KEY`."""


class Published(NamedTuple):
    """A row that was published."""

    path: str
    """The file it lies in, below `results/published`."""
    digest: str
    """Hash of all it says."""


class TaskFacts(NamedTuple):
    """What a row must say of a task, as a suite configures it."""

    card: TaskCard
    spec: TaskSpec
    task: Task[Any]

    def floor(self, context: int) -> float:
        """Score of the best trivial solver at a context."""
        return self.task.floor(context)


class SuiteFacts(NamedTuple):
    """A suite and its tasks, in its order."""

    suite: Suite
    tasks: tuple[TaskFacts, ...]


class MethodFacts(NamedTuple):
    """What the source of a method tells without being run."""

    source_hash: str
    defaults: Mapping[str, object] | None
    """The config's fields and their defaults; None where the source does not spell them out."""
    has_parts: bool


@dataclass(frozen=True)
class Tree:
    """A source tree as the rules see it; `read_tree` makes one."""

    methods: Mapping[str, Path]
    """The file of each method, by name."""
    harness_hash: str
    published: Mapping[Key, Published] = field(default_factory=dict[Key, Published])
    """The rows that were published, by their keys."""
    is_current: bool = True
    """Whether rows must have been measured with the code of this tree. What was published before
    was measured with that of its day, and is held to what it says of itself alone."""

    def suite(self, name: str) -> SuiteFacts | None:
        """A suite that is installed, or None."""
        return _suite(name)

    def method(self, name: str) -> MethodFacts | None:
        """A method of the tree, or None."""
        path = self.methods.get(name)
        return None if path is None else _method(path)

    def method_hash(self, name: str, config: str) -> str | None:
        """The hash that rows of a method carry, or None for one that is not there.

        Raises:
            ValueError: A method made of parts that cannot be told.
        """
        facts = self.method(name)
        if facts is None or not facts.has_parts:
            return facts and facts.source_hash
        return _whole_hash(name, config)


def read_tree(
    root: Path | None = None, published: Path | None = None, *, is_current: bool = True
) -> Tree:
    """The tree at a folder, by default the one this lcbench runs from.

    Args:
        root: A checkout whose `methods/` stand in place of those of the same name here.
        published: The results published so far, whose keys are taken.
        is_current: Whether rows must have been measured with the code of this tree.
    """
    methods = {name: source.path for name, source in registry.sources("method").items()}
    if root is not None:
        files = sorted((root / "methods").glob("[!_]*.py"))
        methods |= {path.stem.replace("_", "-"): path for path in files if not path.is_symlink()}
    keys = {} if published is None else read_published(published)
    return Tree(methods, runner.harness_hash(), keys, is_current)


def read_published(folder: Path) -> dict[Key, Published]:
    """The rows that lie under a folder, by key; of files that break the rules of form, none."""
    found: dict[Key, Published] = {}
    for path in sorted(folder.rglob("*.parquet")):
        name = path.relative_to(folder).as_posix()
        faults = Findings(name)
        content = read_regular(path, faults)
        table = None if content is None else read_bounded(content, faults, may_be_older=True)
        if table is None:
            continue
        keys = zip(*(table[column].to_pylist() for column in store.ROW_KEY), strict=True)
        for key, line in zip(keys, store.canonical_rows(table), strict=True):
            found.setdefault(key, Published(name, digest(line)))
    return found


@functools.cache
def _suite(name: str) -> SuiteFacts | None:
    try:
        suite = registry.load_suite(name)
        tasks: list[TaskFacts] = []
        for plan in suite.tasks:
            spec = registry.load_task(plan.task)
            config = spec.config().override(plan.config)
            task = spec.build(config, "test")
            text_hash = registry.source_hash("task", plan.task)
            card = TaskCard(config.canonical(), spec.version, text_hash, task.data_hash())
            tasks.append(TaskFacts(card, spec, task))
    except (UsageError, PluginError):
        return None
    return SuiteFacts(suite, tuple(tasks))


def _whole_hash(name: str, config: str) -> str:
    """The hash of a method made of parts, which a child that imports it tells."""
    values: dict[str, object] = json.loads(config)
    overrides = ",".join(f"{field}={value}" for field, value in values.items())
    try:
        (card,) = runner.describe_methods([(name, overrides)])
    except UsageError as error:
        raise ValueError(str(error)) from None
    if card.error is not None:
        raise ValueError(card.error)
    return _checked(card, config)


def _checked(card: MethodCard, config: str) -> str:
    if card.config != config:
        raise ValueError(f"its config reads as {card.config}")
    return card.source_hash


def _method(path: Path) -> MethodFacts:
    text = path.read_bytes().replace(b"\r\n", b"\n")
    return MethodFacts(digest(text), *_declared(text))


def _declared(text: bytes) -> tuple[dict[str, object] | None, bool]:
    """The literal fields of a method's config, and whether it declares parts."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None, False
    constants = _constants(body)
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            if not any(isinstance(t, ast.Name) and t.id == "METHOD" for t in node.targets):
                continue
            keywords = {k.arg: k.value for k in node.value.keywords}
            config = keywords.get("config")
            declared = classes.get(config.id) if isinstance(config, ast.Name) else None
            return declared and _fields(declared, constants), "parts" in keywords
    return None, False


def _constants(body: list[ast.stmt]) -> dict[str, object]:
    return {
        target.id: node.value.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _fields(declared: ast.ClassDef, constants: Mapping[str, object]) -> dict[str, object] | None:
    """The fields of a config that has no other config as its base, where all are literal."""
    if [ast.unparse(base) for base in declared.bases] != ["MethodConfig"]:
        return None
    found: dict[str, object] = {}
    for node in declared.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            value = node.value
            if isinstance(value, ast.Name) and value.id in constants:
                found[node.target.id] = constants[value.id]
            elif value is not None and _is_literal(value):
                literal = ast.literal_eval(value)
                is_float = ast.unparse(node.annotation) == "float"
                found[node.target.id] = float(literal) if is_float else literal
            else:
                return None
    return found


def _is_literal(node: ast.expr) -> bool:
    operand = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(operand, ast.Constant)
