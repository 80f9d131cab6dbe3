"""The rules that hold a submission's rows to the plan: cells, seeds, hashes, the anchor beside."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lcbench.config import digest
from lcbench.store import COLUMN_GROUPS, CURVE, ROW_KEY
from lcbench.submission_rows import Rows, read_json
from lcbench.submission_rules import Findings
from lcbench.submission_scores import check_budget, check_task
from lcbench.submission_tree import SuiteFacts, Tree
from lcbench.suite import (
    ANCHOR,
    DRAFT,
    Cell,
    MethodCard,
    Selection,
    TaskCard,
    plan_cells,
    read_cost_recipe,
    read_quality_recipe,
)

MOST_BEYOND_PINNED = 64
"""Seeds a submission may have beyond the suite's."""
ANCHORS_AGREE = 20.0
"""How many times slower or faster the anchor may be beside a method than by itself: what this
catches is an anchor that was made slow, not noise."""
INTERRUPTION_MS = 20.0
"""What a busy machine may add to the median of a call that takes next to nothing."""
_CELL_FIELDS = (
    *("kind", "suite", "suite_version", "task", "task_version", "task_hash", "task_config"),
    *("data_hash", "method", "method_hash", "config", "recipe", "seed", "dtype", "device_kind"),
    *("harness_hash", "deterministic"),
)
_OF_A_CELL = (
    *(name for name in COLUMN_GROUPS["identity"] if name not in ("context", "batch")),
    *("wall_s", *COLUMN_GROUPS["provenance"], *COLUMN_GROUPS["environment"]),
)
_OF_A_TRAINING = (
    *("learning_rate", "train_steps", "train_s", *CURVE),
    *("num_params", "metric", "ceiling"),
)
_OF_A_MACHINE = tuple(
    name
    for name in COLUMN_GROUPS["environment"]
    if name not in ("env_id", "matmul_flops_per_s", "copy_bytes_per_s")
)
_OF_A_FILE = ("suite", "suite_version", "harness_hash", "device_kind", "dtype", "deterministic")
_OF_A_TASK = ("task_version", "task_hash", "data_hash")


class Place(NamedTuple):
    """Where a file lies below `results/published`, read from its name."""

    suite: str
    method: str
    day: str
    digest: str


def check_plan(
    rows: Rows, lines: Iterable[str], place: Place, tree: Tree, findings: Findings
) -> dict[int, Cell]:
    """Hold rows to the plan they come from.

    Args:
        rows: The rows of a file, none of which lacks what every row must have.
        lines: What each says, as `store.canonical_rows` gives it.
        place: What the file's name says.
        tree: The source tree they were measured with.
        findings: Where a broken rule is noted.

    Returns:
        The cell of each row whose recipe can be read.
    """
    facts = _check_suite(rows, place, tree, findings)
    _check_methods(rows, place, tree, findings)
    cells = _read_cells(rows, findings)
    if tree.is_current:
        _check_hashes(rows, facts, tree, findings)
    _check_one_measurement(rows, cells, findings)
    _check_machines(rows, findings)
    _check_keys(rows, lines, findings, tree)
    _check_anchor(rows, place, findings)
    if facts and "suite" not in findings.broken():
        _check_cells(rows, place, facts, tree, findings)
        if "task-hash" not in findings.broken():
            _check_tasks(rows, cells, facts, tree, findings)
    return cells


def _check_suite(rows: Rows, place: Place, tree: Tree, findings: Findings) -> SuiteFacts | None:
    facts = tree.suite(place.suite)
    if facts is None:
        findings.add("suite", f"no suite {place.suite!r}")
    elif tree.is_current and facts.suite.version == DRAFT:
        findings.add("suite", f"suite {place.suite!r} is a draft, whose results are not published")
    for number, row in enumerate(rows):
        if row["suite"] != place.suite:
            message = f"a row is of suite {row['suite']!r} and its file of {place.suite!r}"
            findings.add("suite", message, number, about="name")
        elif facts and row["suite_version"] != facts.suite.version:
            if not tree.is_current:
                return None
            message = f"suite {place.suite!r} is at version {facts.suite.version}"
            message += f", the row at {row['suite_version']}"
            findings.add("suite", message, number, about="version")
    return facts


def _check_methods(rows: Rows, place: Place, tree: Tree, findings: Findings) -> None:
    allowed = {place.method, ANCHOR}
    for number, row in enumerate(rows):
        if row["method"] not in allowed:
            message = f"a row is of method {row['method']!r} and its file of {place.method!r}"
            findings.add("method", message, number, about="name")
    if place.method not in {row["method"] for row in rows}:
        findings.add("method", f"no row is of method {place.method!r}")
    if tree.is_current and tree.method(place.method) is None:
        findings.add("method", f"no methods/{place.method.replace('-', '_')}.py in the tree")
    configs = {(row["method"], row["config"]): number for number, row in enumerate(rows)}
    for (name, config), number in configs.items():
        _check_config(name, config, tree, number, findings)


def _check_config(name: str, config: str, tree: Tree, number: int, findings: Findings) -> None:
    fields, method = read_json(config), tree.method(name)
    if fields is None or method is None or method.defaults is None or not tree.is_current:
        return
    if set(fields) != set(method.defaults):
        wanted = ", ".join(sorted(method.defaults)) or "none"
        found = ", ".join(sorted(fields))[:100] or "none"
        message = f"{name} has the config fields {wanted}; the row has {found}"
        findings.add("config", message, number, about=f"{name} fields")
    if any(isinstance(value, dict | list) for value in fields.values()):
        findings.add("config", f"a field of {name}'s config is not a plain value", number)


def _read_cells(rows: Rows, findings: Findings) -> dict[int, Cell]:
    """The cell of each row; its id must be the row's."""
    cells: dict[int, Cell] = {}
    for number, row in enumerate(rows):
        fields: dict[str, Any] = {name: row[name] for name in _CELL_FIELDS}
        cell = Cell(**fields, timeout_s=0, threads=0)
        if cell.cell_id != row["cell_id"]:
            message = f"cell_id is {row['cell_id']}, what the row says of its work comes to"
            findings.add("cell-id", f"{message} {cell.cell_id}", number, about="cell_id")
        try:
            read = read_quality_recipe if cell.kind == "quality" else read_cost_recipe
            read(cell)
            contexts = cell.contexts
            readable = cell.num_layers > 0 and all(type(c) is int for c in contexts)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            readable, contexts = False, ()
        if not readable or row["context"] not in contexts:
            message = f"the recipe cannot be read or lacks context {row['context']:,}"
            findings.add("plan", message, number, about="recipe")
        else:
            cells[number] = cell
    return cells


def _check_hashes(rows: Rows, facts: SuiteFacts | None, tree: Tree, findings: Findings) -> None:
    own: dict[tuple[str, str], str | None] = {}
    tasks = {task.card: plan.task for plan, task in _pairs(facts)}
    cards = {(name, card.config): card for card, name in tasks.items()}
    for number, row in enumerate(rows):
        if row["harness_hash"] != tree.harness_hash:
            message = f"harness_hash is {row['harness_hash']}, the tree's {tree.harness_hash}"
            findings.add("harness-hash", message, number, about="harness_hash")
        key = (row["method"], row["config"])
        if key not in own:
            own[key] = _method_hash(*key, number, tree, findings)
        if own[key] not in (row["method_hash"], None):
            message = f"method_hash of {key[0]} is {row['method_hash']}, the tree's {own[key]}"
            findings.add("method-hash", message, number, about=key[0])
        card = cards.get((row["task"], row["task_config"]))
        said = (row["task_hash"], row["task_version"])
        if card and said != (card.source_hash, card.version):
            message = f"task {row['task']!r} is {card.source_hash}, version {card.version}, in the"
            message += f" tree; the row says {said[0]}, version {said[1]}"
            findings.add("task-hash", message, number, about=str(row["task"]))


def _pairs(facts: SuiteFacts | None) -> Iterable[tuple[Any, Any]]:
    return zip(facts.suite.tasks, facts.tasks, strict=True) if facts else ()


def _method_hash(name: str, config: str, number: int, tree: Tree, findings: Findings) -> str | None:
    """The tree's hash of a method; None where it has none, which is told."""
    try:
        return tree.method_hash(name, config)
    except ValueError as error:
        message = f"the parts of {name} cannot be told: {str(error)[:200]}"
        findings.add("method-hash", message, number, about=name)
        return None


def _check_one_measurement(rows: Rows, cells: Mapping[int, Cell], findings: Findings) -> None:
    """Rows of a cell are of one measurement and give all of its contexts."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        numbers[row["cell_id"]].append(number)
    for members in numbers.values():
        first = rows[members[0]]
        for number in members[1:]:
            other = rows[number]
            both_ok = first["status"] == other["status"] == "ok"
            columns = _OF_A_CELL + (_OF_A_TRAINING if both_ok else ())
            differing = [name for name in columns if first[name] != other[name]]
            if differing:
                message = f"rows of cell {first['cell_id']} differ in {', '.join(differing[:5])}"
                findings.add("cell", message, number, about=",".join(differing[:5]))
        cell = cells.get(members[0])
        missing = set(cell.contexts if cell else ()) - {rows[n]["context"] for n in members}
        if cell and missing:
            told = ", ".join(f"{context:,}" for context in sorted(missing)[:5])
            message = f"{cell.label} has no row at {told}"
            findings.add("complete", message, members[0], about="contexts")


def _check_machines(rows: Rows, findings: Findings) -> None:
    machines: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        said = {name: row[name] for name in _OF_A_MACHINE}
        first = machines.setdefault(row["env_id"], said)
        differing = [name for name in said if said[name] != first[name]]
        if differing:
            message = f"rows of machine {row['env_id']} differ in {', '.join(differing[:5])}"
            findings.add("machine", message, number, about="env_id")
        if (row["cuda"] is not None) is not (row["device_kind"] == "cuda"):
            message = "cuda is set on CUDA devices and nowhere else"
            findings.add("machine", message, number)
    for name in _OF_A_FILE:
        values = {row[name] for row in rows}
        if len(values) > 1:
            told = ", ".join(sorted(str(value) for value in values)[:5])
            findings.add("machine" if name == "device_kind" else "plan",
                         f"rows of one file have one {name}, these have {told}")  # fmt: skip


def _check_keys(rows: Rows, lines: Iterable[str], findings: Findings, tree: Tree) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        key = tuple(row[name] for name in ROW_KEY)
        if key in seen:
            message = f"it has the key of row {seen[key]}: {row['method']} at {row['context']:,}"
            findings.add("key", message, number, about="twice")
        seen.setdefault(key, number)
        before = tree.published.get(key)
        if before is None or before.path == findings.path:
            continue
        if row["method"] != ANCHOR:
            message = f"its key was published before, in {before.path}"
            findings.add("key", message, number, about="published")
        elif before.digest != digest(line):
            message = f"the anchor's row was published before, in {before.path}, and said otherwise"
            findings.add("anchor", message, number, about="published")


def _check_anchor(rows: Rows, place: Place, findings: Findings) -> None:
    """Beside each row of the method stands the anchor's: same examples, or same machine."""
    anchors = {_beside(row): row for row in rows if row["method"] == ANCHOR}
    if not anchors:
        findings.add("anchor", f"no row of {ANCHOR}; run it beside: --method {ANCHOR},...")
        return
    for number, row in enumerate(rows):
        if row["method"] != place.method:
            continue
        anchor = anchors.get(_beside(row))
        if anchor is None:
            where = "examples" if row["kind"] == "quality" else "machine"
            message = f"no row of {ANCHOR} beside its {row['kind']} at {row['context']:,}"
            findings.add("anchor", f"{message} on the same {where}", number, about=row["kind"])
            continue
        said, alone = row["vanilla_step_ms"], anchor["step_ms"]
        if said and alone and max(said, alone) > ANCHORS_AGREE * min(said, alone) + INTERRUPTION_MS:
            message = f"{ANCHOR} took {said:.3g} ms beside it and {alone:.3g} ms by itself"
            findings.add("anchor", message, number, about="time")


def _beside(row: Mapping[str, Any]) -> tuple[Any, ...]:
    where = ("kind", "context", "dtype", "device_kind", "recipe")
    if row["kind"] == "quality":
        where += ("task", "task_config", "seed", "data_hash", "task_hash")
    else:
        where += ("env_id",)
    return tuple(row[name] for name in where)


def _check_cells(
    rows: Rows, place: Place, facts: SuiteFacts, tree: Tree, findings: Findings
) -> None:
    """All that the suite plans is there, and nothing else."""
    seeds = _seeds(rows, facts, findings)
    first = rows[0]
    cards = _method_cards(rows, place, tree)
    tasks = [_task_card(rows, plan.task, task.card, findings) for plan, task in _pairs(facts)]
    planned = plan_cells(
        facts.suite,
        place.suite,
        cards,
        tasks,
        select=Selection(seeds=seeds),
        dtype=first["dtype"],
        device_kind=first["device_kind"],
        harness_hash=first["harness_hash"],
        deterministic=first["deterministic"],
    )
    present = {row["cell_id"] for row in rows}
    missing = [cell for cell in planned if cell.cell_id not in present]
    if missing:
        told = "; ".join(cell.label for cell in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        findings.add("complete", f"planned cells are missing: {told}{more}")
    known = {cell.cell_id for cell in planned}
    for number, row in enumerate(rows):
        if row["cell_id"] not in known:
            what = row["task"] if row["kind"] == "quality" else row["kind"]
            message = f"suite {place.suite!r} plans no such cell: {row['method']}, {what}"
            findings.add("plan", message, number, about="cell")


def _seeds(rows: Rows, facts: SuiteFacts, findings: Findings) -> list[int]:
    """The seeds to plan: the suite's own, or all from 0 up where there are more."""
    pinned = set(facts.suite.seeds)
    found = {row["seed"] for row in rows if row["kind"] == "quality"}
    count = max(found, default=0) + 1
    is_counted = found == set(range(count)) if count <= len(found) else False
    if found >= pinned and is_counted and count <= len(pinned) + MOST_BEYOND_PINNED:
        return sorted(found)
    if found != pinned:
        told = ", ".join(str(seed) for seed in sorted(found)[:10])
        wanted = ", ".join(str(seed) for seed in sorted(pinned))
        message = f"its seeds are {told or 'none'}; the suite's are {wanted}, and more are"
        findings.add("seeds", f"{message} counted from 0 without a gap")
    return sorted(pinned)


def _method_cards(rows: Rows, place: Place, tree: Tree) -> list[MethodCard]:
    """The method as configured in the file, and the anchor at its defaults."""
    found = {(row["method"], row["config"]): row["method_hash"] for row in rows}
    cards = [
        MethodCard(name, config, own)
        for (name, config), own in found.items()
        if name == place.method
    ]
    anchor = tree.method(ANCHOR)
    if anchor is not None and anchor.defaults is not None:
        config = json.dumps(anchor.defaults, sort_keys=True, separators=(",", ":"))
        own = found.get((ANCHOR, config), anchor.source_hash)
        cards.append(MethodCard(ANCHOR, config, own))
    return list(dict.fromkeys(cards))


def _task_card(rows: Rows, name: str, card: TaskCard, findings: Findings) -> TaskCard:
    """A task's card with the text and corpus that the rows name: those are another rule's."""
    said = {
        tuple(row[column] for column in _OF_A_TASK)
        for row in rows
        if row["task"] == name and row["task_config"] == card.config
    }
    if len(said) > 1:
        findings.add("plan", f"rows of task {name!r} are of {len(said)} texts or corpora")
    if not said:
        return card
    version, source_hash, data_hash = min(said, key=str)
    return TaskCard(card.config, version, source_hash, data_hash)


def _check_tasks(
    rows: Rows,
    cells: Mapping[int, Cell],
    facts: SuiteFacts,
    tree: Tree,
    findings: Findings,
) -> None:
    """What rows say of task, budget and test is what task and plan ask."""
    tasks = {(plan.task, task.card.config): task for plan, task in _pairs(facts)}
    for number, cell in cells.items():
        row = rows[number]
        if row["status"] != "ok":
            continue
        if cell.kind != "quality":
            batch = read_cost_recipe(cell).batch
            if row["batch"] not in (batch, None):
                message = f"batch is {row['batch']}; the plan asks for {batch}"
                findings.add("task", message, number, about="batch")
            continue
        check_budget(row, cell, number, findings)
        task = tasks.get((cell.task, cell.task_config))
        if task and tree.is_current:
            check_task(row, task, number, findings)
