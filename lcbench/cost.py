"""One rung of the cost ladder: a method's layer timed, weighed and counted beside the anchor's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcbench import noise, registry
from lcbench.contract import check_output, config_of, first_line
from lcbench.counting import Work, count_work
from lcbench.environment import usable_cores
from lcbench.measure import Timing, Workload, measure_memory, time_alternating
from lcbench.method import ModelShape, State, state_bytes
from lcbench.model import build_method
from lcbench.suite import ANCHOR, Cell, Kind, read_cost_recipe

Measurement = dict[str, Any]
"""The columns of one row that the measuring process knows."""

NOISY_IQR_SHARE = 0.2
THROTTLED = "throttled: heat or a quota slowed the machine while it was timed"


class Layer:
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
            method = build_method(self.spec, shape, config_of(self.spec, config or "{}"))
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


class _Pair(NamedTuple):
    """The layer in question and the anchor's, to be measured side by side."""

    layer: Layer
    anchor: Layer | None
    """None where the layer is the anchor, or the anchor failed."""
    is_anchor: bool
    warning: str | None
    """Why there is no anchor where there should be one."""


def measure_cost(
    cell: Cell, device: torch.device, stage: Callable[[str], None]
) -> list[Measurement]:
    """The one row of a cost cell.

    Args:
        cell: Of any kind but `quality`.
        device: Where to measure.
        stage: Told what is done next.

    Raises:
        InvalidOutputError: The layer's output has a wrong type, shape or dtype, or is not finite.
    """
    plan = read_cost_recipe(cell)
    stage("build")
    layer = Layer(cell.method, cell.config, cell, device)
    check_output(layer.method, plan.d_model, device)
    stage("measure")
    is_anchor = cell.method == ANCHOR and cell.config == layer.spec.config().canonical()
    anchor, warning = (None, None) if is_anchor else _anchor(cell, device)
    pair = _Pair(layer, anchor, is_anchor, warning)
    times = _time(pair, cell.kind, device, plan.seconds)
    stage("weigh")
    shared: Measurement = {
        "status": "ok",
        "context": layer.context,
        "batch": plan.batch,
        "num_params": sum(p.numel() for p in layer.method.parameters()),
    }
    return [shared | times | _weigh(pair, cell.kind, device)]


def _time(pair: _Pair, kind: Kind, device: torch.device, seconds: float) -> Measurement:
    """The columns of speed, and of what disturbed it."""
    workload = pair.layer.workload(kind)
    beside = pair.anchor.workload(kind) if pair.anchor else None
    load, before = noise.load_average(), noise.read_throttling()
    timing, anchor_timing = time_alternating(workload, beside, device, seconds=seconds)
    gpu_reasons = noise.read_gpu_reasons() if device.type == "cuda" else None
    throttled = noise.was_throttled(before, noise.read_throttling(), gpu_reasons)
    if pair.is_anchor:
        anchor_timing = timing
    told = (pair.warning, _scatter(timing, load), THROTTLED if throttled else None)
    tokens = pair.layer.batch * (1 if kind == "decode" else pair.layer.context)
    return {
        "tokens_per_s": tokens / timing.median_ms * 1e3,
        "step_ms": timing.median_ms,
        "step_ms_iqr": timing.iqr_ms,
        "timings_ns": timing.repeats_ns,
        "vs_vanilla": anchor_timing.median_ms / timing.median_ms if anchor_timing else None,
        "vanilla_step_ms": anchor_timing.median_ms if anchor_timing else None,
        "vanilla_step_ms_iqr": anchor_timing.iqr_ms if anchor_timing else None,
        "load_average": load,
        "throttled": throttled,
        "warning": "; ".join(filter(None, told)) or None,
    }


def _weigh(pair: _Pair, kind: Kind, device: torch.device) -> Measurement:
    """The columns of memory and of work, of calls that nobody times."""
    # A fresh workload: a decode that was timed has moved on by as many steps as there was time for.
    workload = pair.layer.workload(kind)
    memory = measure_memory(workload, device)
    work = _counted(workload)
    anchor_memory = memory if pair.is_anchor else None
    if pair.anchor:
        anchor_memory = measure_memory(pair.anchor.workload(kind), device)
    return {
        "flops": work.flops,
        "touched_bytes": work.touched_bytes,
        "peak_bytes": memory.peak_bytes,
        "vanilla_peak_bytes": anchor_memory.peak_bytes if anchor_memory else None,
        "memory_source": memory.source,
        "state_bytes": pair.layer.state_bytes,
    }


def _anchor(cell: Cell, device: torch.device) -> tuple[Layer | None, str | None]:
    """The anchor's layer, or why it cannot stand beside: its failure is not the method's."""
    try:
        layer = Layer(ANCHOR, None, cell, device)
        trial = layer.workload(cell.kind)
        trial.call(trial.prepare())
    except (MemoryError, RuntimeError) as error:
        return None, f"no ratio: {ANCHOR} failed here with {first_line(error)}"
    return layer, None


def _counted(workload: Workload) -> Work:
    """What a call does, or nothing where a method runs but not under torch's counter."""
    try:
        return count_work(workload)
    except Exception:  # noqa: BLE001 -- what was timed and weighed must not be lost over it
        return Work(None, None)


def _scatter(timing: Timing, load: float | None) -> str | None:
    if timing.iqr_ms <= NOISY_IQR_SHARE * timing.median_ms:
        return None
    under = "" if load is None else f", at a load average of {load:.1f} on {usable_cores()} cores"
    return f"noisy: the IQR is {timing.iqr_ms / timing.median_ms:.0%} of the median{under}"
