"""Suites and the cells they are made of.

A suite says what to ask (tasks, contexts, budgets, seeds) and on what ladder to measure cost. A
plan lays it out, for given methods, as cells: units of work that are run, timed out, kept and
resumed one by one. A cell's id hashes everything that defines its work, so a finished cell is
recognised wherever it lies, and a cell whose method, task, suite or harness changed is a new one.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lcbench.config import digest

Kind = Literal["quality", "train_step", "prefill", "decode"]
COST_KINDS: tuple[Kind, ...] = ("prefill", "train_step", "decode")
ANCHOR = "vanilla"
"""The method every other is timed beside."""


DRAFT = 0
"""The version of a suite before its first."""
NOT_TRIED = "not tried: "
"""How the reason begins of a context that was too long before it was reached."""


def too_long(context: int) -> str:
    """Why contexts beyond one at which memory ran out are not tried."""
    return f"{NOT_TRIED}out of memory at {context:,}"


def too_slow(context: int) -> str:
    """Why contexts beyond one that there was no time to score are not tried."""
    return f"{NOT_TRIED}out of time at {context:,}"


def _require_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{owner}: {name} must be above 0, got {value}")


def _require_heads(owner: str, d_model: int, num_heads: int) -> None:
    if d_model % num_heads:
        raise ValueError(f"{owner}: num_heads {num_heads} does not divide d_model {d_model}")


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """The backbone that hosts every method of a suite."""

    d_model: int
    num_layers: int
    num_heads: int
    mlp_ratio: int = 2
    conv_width: int = 4

    def __post_init__(self) -> None:
        _require_positive("model", **dataclasses.asdict(self))
        _require_heads("model", self.d_model, self.num_heads)


def shortest_example(context: int, jitter: int) -> int:
    """Tokens of the shortest example that is drawn for a context, see `TaskPlan.jitter`."""
    return context - min(jitter, context // 8)


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One task as a suite asks it: trained at one context, scored at several."""

    task: str
    config: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    """Overrides of the task's config, as on the command line."""
    train_context: int
    contexts: tuple[int, ...]
    """Where it is scored; usually the trained context and multiples of it."""
    batch: int
    steps: int
    learning_rates: tuple[float, ...]
    """Tried in turn; the best on validation is scored on test."""
    ramp: int = 0
    """Halvings of the context at the start: the first half of the steps climbs from
    `train_context / 2**ramp` in equal stages, with as many tokens a step throughout."""
    test_tokens: int = 65_536
    """Tokens scored at each context."""
    max_examples: int | None = None
    """Most examples scored at each context, whatever `test_tokens` says."""
    jitter: int = 0
    """Most tokens by which the examples of a batch are shorter than their context, never more than
    an eighth of it. Without it a question at the end of a context stands at the end of a method's
    block in every example, where a global token sees all and a segment's memory is longest."""

    def __post_init__(self) -> None:
        _require_positive(
            self.task,
            train_context=self.train_context,
            batch=self.batch,
            steps=self.steps,
            test_tokens=self.test_tokens,
            max_examples=1 if self.max_examples is None else self.max_examples,
        )
        if not self.contexts or not self.learning_rates:
            raise ValueError(f"{self.task}: contexts and learning_rates must not be empty")
        _require_positive(
            self.task, contexts=min(self.contexts), learning_rates=min(self.learning_rates)
        )
        if self.jitter < 0:
            raise ValueError(f"{self.task}: jitter must be at least 0, got {self.jitter}")
        if self.ramp < 0 or self.train_context % 2**self.ramp:
            raise ValueError(f"{self.task}: ramp {self.ramp} does not divide {self.train_context}")

    def test_examples(self, context: int) -> int:
        """Examples scored at a context: as many as fit in `test_tokens`, and at least 8."""
        examples = max(8, self.test_tokens // context)
        return examples if self.max_examples is None else min(examples, self.max_examples)


@dataclass(frozen=True, kw_only=True)
class CostPlan:
    """The ladder on which one layer of each method is timed and weighed."""

    contexts: tuple[int, ...]
    d_model: int
    num_heads: int
    batch: int = 1
    kinds: tuple[Kind, ...] = COST_KINDS
    seconds: float = 1.0
    """Time spent on timed calls of a cell, the anchor's included, beyond the fewest repeats."""

    def __post_init__(self) -> None:
        _require_positive(
            "cost",
            d_model=self.d_model,
            num_heads=self.num_heads,
            batch=self.batch,
            seconds=self.seconds,
            contexts=min(self.contexts, default=0),
        )
        _require_heads("cost", self.d_model, self.num_heads)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A versioned list of cells. A published version is never edited: a change is a new version."""

    title: str
    version: int
    """`DRAFT` for a suite whose tasks have not passed the gate at its budgets: it may still be
    edited, and what it measures is not published."""
    device_kind: Literal["cpu", "cuda"]
    """The kind of device its budgets are meant for; it runs on any."""
    dtype: Literal["float32", "bfloat16"]
    model: ModelPlan
    tasks: tuple[TaskPlan, ...]
    cost: CostPlan
    seeds: tuple[int, ...] = (0,)
    threads: int = 1
    """CPU threads of a quality cell: fixed, so that scores do not depend on `--jobs`."""
    timeout_s: float = 300.0
    """Longest a cell may take."""

    def __post_init__(self) -> None:
        _require_positive("suite", timeout_s=self.timeout_s, threads=self.threads)
        if self.version < DRAFT:
            raise ValueError(f"suite: version must be at least {DRAFT}, got {self.version}")
        if not self.seeds:
            raise ValueError("suite: seeds must not be empty")


class TaskCard(NamedTuple):
    """What a plan needs to know of a task."""

    config: str
    """Canonical JSON."""
    version: int
    source_hash: str
    data_hash: str | None = None
    """Hash of the corpus, for a real task."""


class MethodCard(NamedTuple):
    """What a plan needs to know of a method, and why it cannot be used if so."""

    name: str
    config: str
    """Canonical JSON, overrides applied; `{}` for a method that does not load."""
    source_hash: str
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One unit of work. Everything in `identity` enters its id; the rest says how to run it."""

    kind: Kind
    suite: str
    suite_version: int
    task: str | None
    task_version: int | None
    task_hash: str | None
    task_config: str | None
    data_hash: str | None
    method: str
    method_hash: str
    config: str
    recipe: str
    """Canonical JSON of all that the suite says of this work: model, budget, contexts."""
    seed: int
    dtype: str
    device_kind: str
    harness_hash: str
    timeout_s: float
    threads: int
    deterministic: bool = False
    """Only algorithms that give the same bits each time, where others may be faster."""
    load_error: str | None = None
    """Why the method cannot be loaded; such a cell is a failure without being run."""

    def identity(self) -> dict[str, Any]:
        """What defines the work."""
        fields = dataclasses.asdict(self)
        for runtime in ("timeout_s", "threads", "load_error"):
            del fields[runtime]
        return fields

    @property
    def cell_id(self) -> str:
        """Hash of the identity."""
        fields = self.identity()
        if not self.deterministic:
            del fields["deterministic"]  # which is younger than the ids of published rows
        return digest(json.dumps(fields, sort_keys=True), 24)

    @property
    def contexts(self) -> tuple[int, ...]:
        """The contexts this cell gives a row for."""
        return tuple(json.loads(self.recipe)["contexts"])

    @property
    def train_context(self) -> int | None:
        """Tokens in training, for a quality cell."""
        return json.loads(self.recipe).get("train_context")

    @property
    def num_layers(self) -> int:
        """Layers of the suite's model: what a method made of parts costs depends on them."""
        recipe = json.loads(self.recipe)
        return recipe.get("model", recipe)["num_layers"]

    @property
    def label(self) -> str:
        """A short name for a progress line."""
        if self.kind == "quality":
            return f"{self.method} · {self.task} · seed {self.seed}"
        return f"{self.method} · {self.kind} at {self.contexts[0]:,}"


class Selection(NamedTuple):
    """What part of a suite to plan; None means all of it."""

    tasks: Sequence[str] | None = None
    contexts: Sequence[int] | None = None
    seeds: Sequence[int] | None = None
    kinds: Sequence[Kind] | None = None


def plan_cells(
    suite: Suite,
    name: str,
    methods: Iterable[MethodCard],
    tasks: Sequence[TaskCard],
    *,
    select: Selection,
    dtype: str,
    device_kind: str,
    harness_hash: str,
    timeout_s: float | None = None,
    deterministic: bool = False,
) -> list[Cell]:
    """Lay a suite out as cells: task by task, then up the cost ladder, all methods at each step.

    Args:
        suite: What to ask.
        name: The suite's name.
        methods: Cards of the methods, in the order they should be run.
        tasks: Cards of `suite.tasks`, in the same order.
        select: The part of the suite to plan. With tasks selected, cost is left out; with contexts
            selected, quality is scored and cost measured at those alone.
        dtype: What the model computes in.
        device_kind: `cpu`, `cuda` or `mps`.
        harness_hash: Hash of the code that trains and measures.
        timeout_s: Longest a cell may take, in place of the suite's.
        deterministic: Whether cells may use only algorithms that give the same bits each time.
    """
    methods = list(methods)
    shared: dict[str, Any] = {
        "suite": name,
        "suite_version": suite.version,
        "dtype": dtype,
        "device_kind": device_kind,
        "harness_hash": harness_hash,
        "timeout_s": timeout_s or suite.timeout_s,
        "deterministic": deterministic,
    }
    cells: list[Cell] = []
    seeds = select.seeds if select.seeds is not None else suite.seeds
    for plan, card in zip(suite.tasks, tasks, strict=True):
        contexts = _chosen(plan.contexts, select.contexts)
        if not contexts or (select.tasks is not None and plan.task not in select.tasks):
            continue
        recipe = _quality_recipe(suite.model, plan, contexts)
        for seed in seeds:
            for method in methods:
                cells.append(
                    _cell("quality", method, shared, recipe, seed, suite.threads, plan.task, card)
                )
    if select.tasks is None:
        for context in _chosen(suite.cost.contexts, select.contexts):
            recipe = _cost_recipe(suite.cost, context, suite.model.num_layers)
            for kind in suite.cost.kinds:
                for method in methods:
                    cells.append(_cell(kind, method, shared, recipe, 0, 0))
    if select.kinds is not None:
        cells = [cell for cell in cells if cell.kind in select.kinds]
    # A variant that spells out a default is the same work under the same id.
    return list({cell.cell_id: cell for cell in cells}.values())


def _chosen(offered: tuple[int, ...], wanted: Sequence[int] | None) -> tuple[int, ...]:
    return offered if wanted is None else tuple(c for c in offered if c in wanted)


def _cell(
    kind: Kind,
    method: MethodCard,
    shared: dict[str, Any],
    recipe: str,
    seed: int,
    threads: int,
    task: str | None = None,
    card: TaskCard | None = None,
) -> Cell:
    return Cell(
        kind=kind,
        task=task,
        task_version=card.version if card else None,
        task_hash=card.source_hash if card else None,
        task_config=card.config if card else None,
        data_hash=card.data_hash if card else None,
        method=method.name,
        method_hash=method.source_hash,
        config=method.config,
        recipe=recipe,
        seed=seed,
        threads=threads,
        load_error=method.error,
        **shared,
    )


def _quality_recipe(model: ModelPlan, plan: TaskPlan, contexts: tuple[int, ...]) -> str:
    fields = dataclasses.asdict(plan) | {"contexts": contexts, "model": dataclasses.asdict(model)}
    del fields["task"], fields["config"]
    # Both are younger than the ids of published rows.
    if plan.max_examples is None:
        del fields["max_examples"]
    if not plan.jitter:
        del fields["jitter"]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def _cost_recipe(plan: CostPlan, context: int, num_layers: int) -> str:
    fields = dataclasses.asdict(plan) | {"contexts": [context], "num_layers": num_layers}
    del fields["kinds"]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def read_quality_recipe(cell: Cell) -> tuple[ModelPlan, TaskPlan]:
    """The plans a quality cell's recipe was written from."""
    fields = json.loads(cell.recipe)
    model = ModelPlan(**fields.pop("model"))
    fields |= {name: tuple(fields[name]) for name in ("contexts", "learning_rates")}
    return model, TaskPlan(task=cell.task or "", **fields)


def read_cost_recipe(cell: Cell) -> CostPlan:
    """The plan a cost cell's recipe was written from, with the one context of the cell."""
    fields = json.loads(cell.recipe)
    fields["contexts"] = tuple(fields["contexts"])
    del fields["num_layers"]
    return CostPlan(**fields)
