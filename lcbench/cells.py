"""One cell to its measurements, in whatever process it is called.

What comes back are plain columns, one mapping a row. Identity, environment and the verdict on a
process that died are added by the runner, so that a method's process cannot state them.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

import torch

from lcbench import parts, registry
from lcbench.config import UsageError, split_assignments
from lcbench.contract import UnsupportedError, check_output, config_of, first_line
from lcbench.cost import Layers, Measurement, measure_cost
from lcbench.curve import Curve
from lcbench.environment import usable_cores, use_threads
from lcbench.failures import failure_of
from lcbench.generation import generate
from lcbench.guard import Guard
from lcbench.model import Backbone
from lcbench.parts import Resolved
from lcbench.suite import ANCHOR, Cell, MethodCard, read_quality_recipe, too_long, too_slow
from lcbench.task import Split, Task
from lcbench.train import (
    DivergedError,
    Evaluation,
    OutOfTimeError,
    Reading,
    Report,
    evaluate,
    train,
)

SCORING_ENDS = 0.9
"""Share of a cell's time after which no longer context is scored: beyond it the process would be
ended, and the shorter contexts' scores with it."""

NO_CHRF = "chrF was not measured: it needs pip install sacrebleu"


class Watcher(NamedTuple):
    """Whom a cell tells how it goes."""

    stage: Callable[[str], None]
    report: Callable[[Report], None]


def describe_method(name: str, overrides: str) -> MethodCard:
    """Resolve a method and its overrides to what a plan needs; a file that fails is described too.

    Raises:
        UsageError: No such method, an unknown field, or a refused value.
    """
    source_hash = registry.source_hash("method", name)
    try:
        spec = registry.load_method(name)
        default = spec.config()
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 -- a method file may raise anything
        return MethodCard(name, "{}", source_hash, first_line(error))
    try:
        config = default.override(split_assignments(overrides))
        resolved = parts.resolve(spec, config)
    except UsageError as error:
        raise UsageError(f"method {name!r}: {error}") from None
    except Exception as error:  # noqa: BLE001 -- so may the file of a part
        return MethodCard(name, "{}", source_hash, first_line(error))
    return MethodCard(name, config.canonical(), parts.method_hash(name, resolved.parts))


def guard_cell(cell: Cell) -> Guard:
    """A guard on all that a cell is measured with; to be made before its method is loaded."""
    # Whatever is wrong with it is told where it is used.
    with contextlib.suppress(Exception):
        if cell.task:
            registry.load_task(cell.task)
        else:
            registry.load_method(ANCHOR)
    return Guard()


def run_cell(cell: Cell, watcher: Watcher, guard: Guard | None = None) -> list[Measurement]:
    """Do the work of one cell.

    Args:
        cell: Of a plan.
        watcher: Told how it goes.
        guard: The cell's, where something was loaded before; else it is made here.

    Raises:
        TamperedError: The method changed what it is measured with, or works on unasked.
        UnsupportedError: The method does not claim what is asked.
        InvalidOutputError: Its output has a wrong type, shape or dtype, or is not finite.
        DivergedError: Its training diverged at every learning rate.
        RuntimeError: In a deterministic cell, an operation that has no such algorithm, by name.
    """
    guard = guard or guard_cell(cell)
    # By names of its own, so that they are called even if their class has others by then.
    check, check_threads = guard.check, guard.check_threads
    try:
        device, method = _begin(cell, watcher, guard)
        check()
        if cell.kind == "quality":
            rows = _Quality(cell, method, device, watcher).run()
        else:
            rows = measure_cost(cell, method, device, watcher.stage, guard)
    finally:
        # Also where it failed: what was replaced may be why.
        check()
        check_threads()
    told = guard.own_threads()
    if told:
        rows = [
            row | {"warning": "; ".join(filter(None, (row.get("warning"), told)))} for row in rows
        ]
    return rows


def prepare_call(cell: Cell, watcher: Watcher, steps: int) -> Callable[[], object]:
    """What a profile looks at: so many training steps of a quality cell, one call of a cost cell.

    The steps are at the full context. Raises what `run_cell` does.
    """
    device, method = _begin(cell, watcher)
    if cell.kind == "quality":
        quality = _Quality(cell, method, device, watcher)
        quality.plan = dataclasses.replace(quality.plan, steps=steps, ramp=0)
        model, learning_rate = quality.build(), quality.plan.learning_rates[0]
        return lambda: quality.train(model, learning_rate)
    layers = Layers(method, cell, device)
    workload = layers.workload(cell.kind)
    return lambda: workload.call(workload.prepare())


def _begin(
    cell: Cell, watcher: Watcher, guard: Guard | None = None
) -> tuple[torch.device, Resolved]:
    """Set the process up for a cell and load its method."""
    device = torch.device(cell.device_kind)
    use_threads(cell.threads or usable_cores())
    if cell.deterministic:
        # Read when CUDA's matrix products are first used: a workspace of its own for each stream.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    if guard:
        guard.settle()
    watcher.stage("load")
    method = load_method(cell)
    if not method.spec.causal:
        raise UnsupportedError("the suite's tasks are causal and the method is not")
    if cell.kind == "decode" and not method.spec.streams:
        raise UnsupportedError("the method keeps no state, so it cannot decode token by token")
    return device, method


def load_method(cell: Cell) -> Resolved:
    """The method of a cell at the cell's configuration."""
    spec = registry.load_method(cell.method)
    return parts.resolve(spec, config_of(spec, cell.config))


def check_sources(cell: Cell) -> None:
    """Refuse to measure a file other than the one that was planned.

    Raises:
        RuntimeError: The method's or the task's file was edited since.
    """
    edited: list[str] = []
    if _method_hash(cell) != cell.method_hash:
        edited.append(f"method {cell.method!r}")
    if cell.task and registry.source_hash("task", cell.task) != cell.task_hash:
        edited.append(f"task {cell.task!r}")
    if edited:
        raise RuntimeError(
            f"{' and '.join(edited)} was edited since the run was planned; run again"
        )


def _method_hash(cell: Cell) -> str | None:
    """The hash of a cell's method as it is now; None where its parts can no longer be told."""
    own = parts.method_hash(cell.method)
    if own == cell.method_hash:
        return own
    try:
        return parts.method_hash(cell.method, load_method(cell).parts)
    except Exception:  # noqa: BLE001 -- an edited file may raise anything
        return None


class _Quality:
    """The work of one quality cell: train at each learning rate, keep the best, score it."""

    def __init__(
        self, cell: Cell, method: Resolved, device: torch.device, watcher: Watcher
    ) -> None:
        self.cell, self.method, self.device, self.watcher = cell, method, device, watcher
        self.model_plan, self.plan = read_quality_recipe(cell)
        self.task_spec = registry.load_task(self.plan.task)
        self.task_config = config_of(self.task_spec, cell.task_config or "{}")
        self.dtype: torch.dtype = getattr(torch, cell.dtype)
        self.scope = {
            "suite": [cell.suite, cell.suite_version],
            "task": [cell.task, cell.task_version, cell.task_config],
            "seed": cell.seed,
        }
        self.deadline = monotonic() + SCORING_ENDS * cell.timeout_s
        self.train_s: dict[float, float] = {}
        """Seconds that training at each learning rate took, scoring not among them."""
        self.curves: dict[float, Curve] = {}
        """How training went at each learning rate, where it came to its end."""
        self.sweep: dict[float, float | None] = {}
        """Loss on validation of each learning rate where there are several, None if it diverged."""

    def run(self) -> list[Measurement]:
        """Train, then one row a context."""
        learning_rate, model = self.train_best()
        self.watcher.stage("evaluate")
        test = self.task("test")
        curve = self.curves[learning_rate]
        shared: Measurement = {
            "status": "ok",
            "batch": self.plan.batch,
            "learning_rate": learning_rate,
            "sweep_learning_rates": list(self.sweep) or None,
            "sweep_loss_nats": list(self.sweep.values()) or None,
            "train_steps": self.plan.steps,
            "train_tokens": self.plan.steps * self.plan.batch * self.plan.train_context,
            "train_s": self.train_s[learning_rate],
            "curve_steps": curve.steps,
            "curve_loss_nats": curve.loss_nats,
            "curve_s": curve.seconds,
            "num_params": sum(p.numel() for p in model.parameters()),
            "metric": self.task_spec.metric,
            "ceiling": self.task_spec.ceiling,
            **self._told(),
        }
        rows: list[Measurement] = []
        for context in self.plan.contexts:
            try:
                # The first has all the time there is: without it the cell has nothing to tell.
                deadline = self.deadline if rows else math.inf
                scores = self.evaluate(model, test, context, deadline)._asdict()
                scores |= self.generate(model, test, context)
            except OutOfTimeError:
                error = f"stopped at {SCORING_ENDS:.0%} of the cell's {self.cell.timeout_s:g} s"
                told = {"status": "timeout", "error": error}
                return rows + self._unfinished(context, told, too_slow(context))
            except Exception as error:
                failure = failure_of(error)
                if failure["status"] != "oom" or not rows:
                    raise
                told = {name: failure[name] for name in ("status", "error", "asked_bytes")}
                return rows + self._unfinished(context, told, too_long(context))
            rows.append(shared | {"context": context, "floor": test.floor(context)} | scores)
        return rows

    def _unfinished(self, first: int, told: Measurement, reason: str) -> list[Measurement]:
        """Rows of the context that was too much and of those beyond it: shorter ones stand."""
        rows: list[Measurement] = [{**told, "stage": "evaluate", "context": first}]
        for context in self.plan.contexts[self.plan.contexts.index(first) + 1 :]:
            rows.append({"status": told["status"], "error": reason, "context": context})
        return rows

    def task(self, split: Split) -> Task[Any]:
        """The task's examples of one split."""
        return self.task_spec.build(self.task_config, split)

    def train_best(self) -> tuple[float, Backbone]:
        """The model that does best on validation, and its learning rate."""
        best: tuple[float, float, Backbone] | None = None
        diverged: DivergedError | None = None
        for learning_rate in self.plan.learning_rates:
            loss = None
            try:
                model = self.train_one(learning_rate)
                loss = self.validate(model) if len(self.plan.learning_rates) > 1 else 0.0
            except DivergedError as error:
                diverged = error
            else:
                if best is None or (loss, learning_rate) < best[:2]:
                    best = loss, learning_rate, model
            if len(self.plan.learning_rates) > 1:
                self.sweep[learning_rate] = loss
        if best is None:
            assert diverged
            raise diverged
        return best[1:]

    def validate(self, model: Backbone) -> float:
        """Loss on validation, in nats."""
        return self.evaluate(model, self.task("validation"), self.plan.train_context).loss_nats

    def train_one(self, learning_rate: float) -> Backbone:
        """A model trained at one learning rate."""
        model = self.build()
        self.watcher.stage("train")
        # What a method draws while it trains (dropout, random features) belongs to the seed too.
        torch.manual_seed(self.cell.seed)
        self.train(model, learning_rate)
        return model

    def build(self) -> Backbone:
        """A model at its start, its method held to the contract."""
        self.watcher.stage("build")
        task = self.task("train")
        model = Backbone(
            self.model_plan,
            task.vocab_size,
            self.method.build,
            train_context=self.plan.train_context,
            seed=self.cell.seed,
        ).to(self.device)
        for method in model.methods[: self.method.layers_in(self.cell.num_layers)]:
            check_output(method, self.model_plan.d_model, self.device)
        return model

    def train(self, model: Backbone, learning_rate: float) -> None:
        """Train a model in place."""
        started = monotonic()
        training = train(
            model,
            self.task("train"),
            self.plan,
            self.scope,
            learning_rate=learning_rate,
            dtype=self.dtype,
            report=self.watcher.report,
        )
        self.train_s[learning_rate] = monotonic() - started
        self.curves[learning_rate] = training.curve

    def evaluate(
        self, model: Backbone, task: Task[Any], context: int, deadline: float = math.inf
    ) -> Evaluation:
        """Scores at one context, on the task's own split."""
        reading = self._reading(context, deadline)
        return evaluate(model, task, self.task_spec.metric, self.scope, reading)

    def generate(self, model: Backbone, task: Task[Any], context: int) -> Measurement:
        """What a model writes by itself, where the task asks for it and the method can."""
        if task.end is None or not self.method.spec.streams:
            return {}
        try:
            found = generate(model, task, self.scope, self._reading(context, self.deadline))
        except OutOfTimeError:
            return self._told("no time was left for the model to write by itself")
        return found._asdict() | ({} if found.generated_chrf is not None else self._told(NO_CHRF))

    def _told(self, warning: str | None = None) -> Measurement:
        """The warning of a row: what is to be told of the method, and of this row."""
        of_method = self.method.cut_by(self.cell.num_layers)
        return {"warning": "; ".join(filter(None, (of_method, warning))) or None}

    def _reading(self, context: int, deadline: float) -> Reading:
        """How the examples of one context are read."""
        return Reading(
            context,
            self.plan.test_examples(context),
            self.dtype,
            chunked=self.method.spec.streams and self.method.spec.segment_exact,
            jitter=self.plan.jitter,
            deadline=deadline,
        )
