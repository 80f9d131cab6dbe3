"""One cell to its measurements, in whatever process it is called.

What comes back are plain columns, one mapping a row. Identity, environment and the verdict on a
process that died are added by the runner, so that a method's process cannot state them.
"""

import json
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcbench import registry
from lcbench.config import UsageError, split_assignments
from lcbench.environment import usable_cores
from lcbench.measure import Timing, Workload, measure_memory, time_alternating
from lcbench.method import Method, MethodSpec, ModelShape, State, state_bytes, state_tensors
from lcbench.model import Backbone
from lcbench.suite import (
    ANCHOR,
    Cell,
    Kind,
    MethodCard,
    read_cost_recipe,
    read_quality_recipe,
)
from lcbench.task import Split, Task, TaskSpec
from lcbench.train import DivergedError, Evaluation, Report, evaluate, train

Measurement = dict[str, Any]
"""The columns of one row that the measuring process knows."""

NOISY_IQR_SHARE = 0.2


class UnsupportedError(Exception):
    """The method does not claim what the cell asks for."""

    status = "unsupported"


class InvalidOutputError(Exception):
    """A method's output is not what the contract promises."""

    status = "invalid"


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
    except UsageError as error:
        raise UsageError(f"method {name!r}: {error}") from None
    return MethodCard(name, config.canonical(), source_hash)


def run_cell(cell: Cell, watcher: Watcher) -> list[Measurement]:
    """Do the work of one cell.

    Raises:
        UnsupportedError: The method does not claim what is asked.
        InvalidOutputError: Its output has a wrong type, shape or dtype, or is not finite.
        DivergedError: Its training diverged at every learning rate.
    """
    device = torch.device(cell.device_kind)
    torch.set_num_threads(cell.threads or usable_cores())
    watcher.stage("load")
    spec = registry.load_method(cell.method)
    if not spec.causal:
        raise UnsupportedError("the suite's tasks are causal and the method is not")
    if cell.kind == "quality":
        return _Quality(cell, spec, device, watcher).run()
    return _run_cost(cell, device, watcher)


def check_sources(cell: Cell) -> None:
    """Refuse to measure a file other than the one that was planned.

    Raises:
        RuntimeError: The method's or the task's file was edited since.
    """
    edited: list[str] = []
    if registry.source_hash("method", cell.method) != cell.method_hash:
        edited.append(f"method {cell.method!r}")
    if cell.task and registry.source_hash("task", cell.task) != cell.task_hash:
        edited.append(f"task {cell.task!r}")
    if edited:
        raise RuntimeError(
            f"{' and '.join(edited)} was edited since the run was planned; run again"
        )


def first_line(error: BaseException) -> str:
    """Type and first line of an error, as a status row keeps it."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def config_of(spec: MethodSpec | TaskSpec, canonical: str) -> Any:
    """The config that `canonical` was written from."""
    return spec.config(**json.loads(canonical))


class _Quality:
    """The work of one quality cell: train at each learning rate, keep the best, score it."""

    def __init__(
        self, cell: Cell, spec: MethodSpec, device: torch.device, watcher: Watcher
    ) -> None:
        self.cell, self.spec, self.device, self.watcher = cell, spec, device, watcher
        self.model_plan, self.plan = read_quality_recipe(cell)
        self.task_spec = registry.load_task(self.plan.task)
        self.task_config = config_of(self.task_spec, cell.task_config or "{}")
        self.dtype: torch.dtype = getattr(torch, cell.dtype)
        self.scope = {
            "suite": [cell.suite, cell.suite_version],
            "task": [cell.task, cell.task_version, cell.task_config],
            "seed": cell.seed,
        }
        self.train_s: dict[float, float] = {}
        """Seconds that training at each learning rate took, scoring not among them."""

    def run(self) -> list[Measurement]:
        """Train, then one row a context."""
        learning_rate, model = self.train_best()
        self.watcher.stage("evaluate")
        test = self.task("test")
        shared: Measurement = {
            "status": "ok",
            "batch": self.plan.batch,
            "learning_rate": learning_rate,
            "train_steps": self.plan.steps,
            "train_tokens": self.plan.steps * self.plan.batch * self.plan.train_context,
            "train_s": self.train_s[learning_rate],
            "num_params": sum(p.numel() for p in model.parameters()),
            "metric": self.task_spec.metric,
            "ceiling": self.task_spec.ceiling,
        }
        return [
            shared
            | {"context": context, "floor": test.floor(context)}
            | self.evaluate(model, test, context)._asdict()
            for context in self.plan.contexts
        ]

    def task(self, split: Split) -> Task[Any]:
        """The task's examples of one split."""
        return self.task_spec.build(self.task_config, split)

    def train_best(self) -> tuple[float, Backbone]:
        """The model that does best on validation, and its learning rate."""
        results: list[tuple[float, float, Backbone]] = []
        diverged: DivergedError | None = None
        for learning_rate in self.plan.learning_rates:
            loss = 0.0
            try:
                model = self.train_one(learning_rate)
                if len(self.plan.learning_rates) > 1:
                    chosen = self.evaluate(model, self.task("validation"), self.plan.train_context)
                    loss = chosen.loss_nats
            except DivergedError as error:
                diverged = error
                continue
            results.append((loss, learning_rate, model))
        if diverged and not results:
            raise diverged
        _, learning_rate, model = min(results, key=lambda result: result[:2])
        return learning_rate, model

    def train_one(self, learning_rate: float) -> Backbone:
        """A model trained at one learning rate."""
        self.watcher.stage("build")
        task = self.task("train")
        config = config_of(self.spec, self.cell.config)
        model = Backbone(
            self.model_plan,
            task.vocab_size,
            lambda shape: self.spec.build(shape, config),
            train_context=self.plan.train_context,
            seed=self.cell.seed,
        ).to(self.device)
        check_output(model.first_method, self.model_plan.d_model, self.device)
        self.watcher.stage("train")
        # What a method draws while it trains (dropout, random features) belongs to the seed too.
        torch.manual_seed(self.cell.seed)
        started = monotonic()
        train(
            model,
            task,
            self.plan,
            self.scope,
            learning_rate=learning_rate,
            dtype=self.dtype,
            report=self.watcher.report,
        )
        self.train_s[learning_rate] = monotonic() - started
        return model

    def evaluate(self, model: Backbone, task: Task[Any], context: int) -> Evaluation:
        """Scores at one context, on the task's own split."""
        return evaluate(
            model,
            task,
            self.task_spec.metric,
            self.scope,
            context=context,
            num_examples=self.plan.test_examples(context),
            dtype=self.dtype,
            chunked=self.spec.streams and self.spec.segment_exact,
        )


class _Layer:
    """One layer of a method, ready to be timed and weighed at one context."""

    def __init__(self, name: str, config: str | None, cell: Cell, device: torch.device) -> None:
        plan = read_cost_recipe(cell)
        self.spec = registry.load_method(name)
        self.batch, self.d_model, self.context = plan.batch, plan.d_model, plan.contexts[0]
        self.device, self.dtype = device, getattr(torch, cell.dtype)
        shape = ModelShape(
            d_model=plan.d_model, num_heads=plan.num_heads, train_context=self.context
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.seed)
            method = self.spec.build(shape, config_of(self.spec, config or "{}"))
        self.method = method.to(device, self.dtype)
        self.state_bytes: int | None = None

    def tokens(self, count: int) -> Tensor:
        """Fresh random inputs `[B, count, D]`."""
        return torch.randn(self.batch, count, self.d_model, device=self.device, dtype=self.dtype)

    def workload(self, kind: Kind) -> Workload:
        """What one call of this kind does."""
        self.method.train(kind == "train_step")
        if kind == "train_step":
            return Workload(self._train_inputs, self._train_step)
        if kind == "prefill":
            return Workload(lambda: self.tokens(self.context), self._prefill)
        state = self.prefilled_state()
        self.state_bytes = state_bytes(state)
        # The first step may make room in a cache for many; what is measured is the step after it.
        _, state = self.decode_step(self.tokens(1), state)

        def decode(token: Tensor) -> Tensor:
            nonlocal state
            out, state = self.decode_step(token, state)
            return out

        return Workload(lambda: self.tokens(1), decode)

    @torch.no_grad()
    def prefilled_state(self) -> State:
        """The state after `context` tokens."""
        return self.method(self.tokens(self.context))[1]

    @torch.no_grad()
    def decode_step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one more token `[B, 1, D]`."""
        return self.method(token, state)

    @torch.no_grad()
    def _prefill(self, x: Tensor) -> tuple[Tensor, State]:
        return self.method(x)

    def _train_inputs(self) -> tuple[Tensor, Tensor]:
        self.method.zero_grad(set_to_none=True)
        return self.tokens(self.context).requires_grad_(), self.tokens(self.context)

    def _train_step(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        x, gradient = inputs
        out, _ = self.method(x)
        penalty = self.method.penalty()
        if penalty is not None:
            penalty.backward(retain_graph=True)
        out.backward(gradient)
        return out


def _run_cost(cell: Cell, device: torch.device, watcher: Watcher) -> list[Measurement]:
    plan = read_cost_recipe(cell)
    watcher.stage("build")
    layer = _Layer(cell.method, cell.config, cell, device)
    if cell.kind == "decode" and not layer.spec.streams:
        raise UnsupportedError("the method keeps no state, so it cannot decode token by token")
    check_output(layer.method, plan.d_model, device)
    watcher.stage("measure")
    workload = layer.workload(cell.kind)
    is_anchor = cell.method == ANCHOR and cell.config == layer.spec.config().canonical()
    anchor, warning = (None, None) if is_anchor else _anchor(cell, device)
    beside = anchor.workload(cell.kind) if anchor else None
    timing, anchor_timing = time_alternating(workload, beside, device, seconds=plan.seconds)
    if is_anchor:
        anchor_timing = timing
    watcher.stage("weigh")
    # A fresh workload: a decode that was timed has moved on by as many steps as there was time for.
    memory = measure_memory(layer.workload(cell.kind), device)
    anchor_memory = memory if is_anchor else None
    if anchor:
        anchor_memory = measure_memory(anchor.workload(cell.kind), device)
    tokens = plan.batch * (1 if cell.kind == "decode" else layer.context)
    return [
        {
            "status": "ok",
            "context": layer.context,
            "batch": plan.batch,
            "tokens_per_s": tokens / timing.median_ms * 1e3,
            "step_ms": timing.median_ms,
            "step_ms_iqr": timing.iqr_ms,
            "timings_ns": timing.repeats_ns,
            "vs_vanilla": anchor_timing.median_ms / timing.median_ms if anchor_timing else None,
            "vanilla_step_ms": anchor_timing.median_ms if anchor_timing else None,
            "vanilla_step_ms_iqr": anchor_timing.iqr_ms if anchor_timing else None,
            "vanilla_peak_bytes": anchor_memory.peak_bytes if anchor_memory else None,
            "warning": warning or _noise(timing),
            "peak_bytes": memory.peak_bytes,
            "memory_source": memory.source,
            "state_bytes": layer.state_bytes,
            "num_params": sum(p.numel() for p in layer.method.parameters()),
        }
    ]


def _anchor(cell: Cell, device: torch.device) -> tuple[_Layer | None, str | None]:
    """The anchor's layer, or why it cannot stand beside: its failure is not the method's."""
    try:
        layer = _Layer(ANCHOR, None, cell, device)
        trial = layer.workload(cell.kind)
        trial.call(trial.prepare())
    except (MemoryError, RuntimeError) as error:
        return None, f"no ratio: {ANCHOR} failed here with {first_line(error)}"
    return layer, None


def check_output(method: Method, d_model: int, device: torch.device) -> None:
    """Hold a method to the contract on a few tokens.

    Raises:
        InvalidOutputError: Not a pair, not a plain tensor, a wrong shape or dtype, or not finite.
    """
    like = next(method.parameters(), torch.empty(0))
    x = torch.randn(2, 9, d_model, device=device, dtype=like.dtype)
    with torch.no_grad():
        result: object = method(x)
    if not (isinstance(result, tuple) and len(result) == 2):  # pyright: ignore[reportUnknownArgumentType]
        raise InvalidOutputError(f"forward must return (output, state), got {_kind(result)}")
    out: object = result[0]
    if not isinstance(out, Tensor) or type(out) is not Tensor:
        raise InvalidOutputError(f"the output must be a plain tensor, got {_kind(out)}")
    try:
        list(state_tensors(result[1]))
    except TypeError as error:
        raise InvalidOutputError(str(error)) from None
    if out.shape != x.shape:
        raise InvalidOutputError(f"x is {list(x.shape)}, the output is {list(out.shape)}")
    if out.dtype != x.dtype:
        raise InvalidOutputError(f"x is {x.dtype}, the output is {out.dtype}")
    if not out.isfinite().all():
        raise InvalidOutputError("the output holds NaN or infinity for normal inputs")


def _kind(value: object) -> str:
    return type(value).__name__


def _noise(timing: Timing) -> str | None:
    if timing.iqr_ms <= NOISY_IQR_SHARE * timing.median_ms:
        return None
    return f"noisy: the IQR is {timing.iqr_ms / timing.median_ms:.0%} of the median"
