"""One rung of the cost ladder: a method's layers timed, weighed and counted beside the anchor's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcbench import noise, parts
from lcbench.contract import InvalidOutputError, check_output, first_line
from lcbench.counting import Work, count_work
from lcbench.environment import usable_cores
from lcbench.guard import Guard, Witness
from lcbench.measure import Outputs, Timing, Workload, measure_memory, time_alternating
from lcbench.method import Method, ModelShape, State, copy_state, state_bytes
from lcbench.parts import Resolved
from lcbench.suite import ANCHOR, Cell, Kind, read_cost_recipe

Measurement = dict[str, Any]
"""The columns of one row that the measuring process knows."""

NOISY_IQR_SHARE = 0.2
THROTTLED = "throttled: heat or a quota slowed the machine while it was timed"


_Pass = tuple[Tensor, tuple[State, ...]]
"""Output and states of a pass over several layers."""


class Layers:
    """Layers of a method on top of one another, ready to be timed and weighed at one context.

    One layer where all are alike; for a method made of parts, as many as show each part in its
    share of the model. What is measured of them is divided by their number.

    Args:
        method: Whose layers.
        cell: Tells the shape, the context and the kind of numbers.
        device: Where they stand.
        number: How many; by default as many as show all of the method.
    """

    def __init__(
        self, method: Resolved, cell: Cell, device: torch.device, number: int | None = None
    ) -> None:
        plan = read_cost_recipe(cell)
        self.batch, self.d_model, self.context = plan.batch, plan.d_model, plan.contexts[0]
        self.device, self.dtype = device, getattr(torch, cell.dtype)
        self.methods: list[Method] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.seed)
            for layer in range(number or method.layers_in(cell.num_layers)):
                shape = ModelShape(
                    d_model=plan.d_model,
                    num_heads=plan.num_heads,
                    layer=layer,
                    num_layers=cell.num_layers,
                    train_context=self.context,
                )
                self.methods.append(method.build(shape).to(device, self.dtype))
        self.state_bytes: int | None = None

    @property
    def number(self) -> int:
        """How many layers there are."""
        return len(self.methods)

    def tokens(self, count: int) -> Tensor:
        """Fresh random inputs `[B, count, D]`."""
        return torch.randn(self.batch, count, self.d_model, device=self.device, dtype=self.dtype)

    def forward(self, x: Tensor, states: tuple[State, ...] | None = None) -> _Pass:
        """Read the next T tokens: `[B, T, D]` to `[B, T, D]`, and each layer's state."""
        after: list[State] = []
        for index, method in enumerate(self.methods):
            x, state = method(x, states[index] if states else None)
            after.append(state)
        return x, tuple(after)

    def workload(self, kind: Kind) -> Workload:
        """What one call of this kind does."""
        for method in self.methods:
            method.train(kind == "train_step")
        if kind == "train_step":
            return Workload(self._train_inputs, self._train_step, _copy_train_inputs)
        if kind == "prefill":
            return Workload(lambda: self.tokens(self.context), self._prefill_step, Tensor.clone)
        state = self._prefill(self.tokens(self.context))[1]
        self.state_bytes = state_bytes(state)
        # The first step may make room in a cache for many; what is measured is the step after it.
        _, state = self.decode_step(self.tokens(1), state)

        def decode(inputs: tuple[Tensor, tuple[State, ...]]) -> Outputs:
            nonlocal state
            out, state = self.decode_step(*inputs)
            return Outputs((out,))

        return Workload(
            lambda: (self.tokens(1), state),
            decode,
            lambda inputs: (inputs[0].clone(), copy_state(inputs[1])),
        )

    @torch.no_grad()
    def decode_step(self, token: Tensor, states: tuple[State, ...]) -> _Pass:
        """Read one more token `[B, 1, D]`."""
        return self.forward(token, states)

    @torch.no_grad()
    def _prefill(self, x: Tensor) -> _Pass:
        return self.forward(x)

    def _train_inputs(self) -> tuple[Tensor, Tensor]:
        for method in self.methods:
            method.zero_grad(set_to_none=True)
        return self.tokens(self.context).requires_grad_(), self.tokens(self.context)

    def _prefill_step(self, x: Tensor) -> Outputs:
        out, states = self._prefill(x)
        return Outputs((out,), state=states)

    def _train_step(self, inputs: tuple[Tensor, Tensor]) -> Outputs:
        x, gradient = inputs
        out, _ = self.forward(x)
        for method in self.methods:
            if (penalty := method.penalty()) is not None:
                penalty.backward(retain_graph=True)
        out.backward(gradient)
        if x.grad is None:
            raise InvalidOutputError("a training step gave its input no gradient")
        rest = tuple(p.grad for method in self.methods for p in method.parameters())
        return Outputs((out, x.grad), rest)


def _copy_train_inputs(inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, gradient = inputs
    return x.detach().clone().requires_grad_(), gradient.clone()


class _Pair(NamedTuple):
    """The layers in question and as many of the anchor's, to be measured side by side."""

    layers: Layers
    anchor: Layers | None
    """None where the method is the anchor, or the anchor failed."""
    is_anchor: bool
    warnings: tuple[str | None, ...]
    """Why there is no anchor where there should be one; what the layers leave out."""


def measure_cost(
    cell: Cell,
    method: Resolved,
    device: torch.device,
    stage: Callable[[str], None],
    guard: Guard,
) -> list[Measurement]:
    """The one row of a cost cell: all its figures are of one layer.

    Args:
        cell: Of any kind but `quality`.
        method: The cell's method.
        device: Where to measure.
        stage: Told what is done next.
        guard: Made before the method was loaded.

    Raises:
        InvalidOutputError: The layer's output has a wrong type, shape or dtype, or is not finite;
            or it is not what the layer gives when nobody looks at the clock.
        TamperedError: The method changed what it is measured with.
    """
    plan = read_cost_recipe(cell)
    stage("build")
    layers = Layers(method, cell, device)
    for built in layers.methods:
        check_output(built, plan.d_model, device)
    stage("measure")
    is_anchor = cell.method == ANCHOR and cell.config == method.spec.config().canonical()
    anchor, warning = (None, None) if is_anchor else _anchor(cell, device, layers.number)
    pair = _Pair(layers, anchor, is_anchor, (warning, method.cut_by(cell.num_layers)))
    guard.check()
    times = _time(pair, cell.kind, device, plan.seconds, guard)
    guard.check()
    stage("weigh")
    params = sum(p.numel() for built in layers.methods for p in built.parameters())
    shared: Measurement = {
        "status": "ok",
        "context": layers.context,
        "batch": plan.batch,
        "num_params": _share(params, layers.number),
    }
    return [shared | times | _weigh(pair, cell.kind, device)]


def _time(
    pair: _Pair, kind: Kind, device: torch.device, seconds: float, guard: Guard
) -> Measurement:
    """The columns of speed, and of what disturbed it."""
    layers = pair.layers
    workload = layers.workload(kind)
    beside = pair.anchor.workload(kind) if pair.anchor else None
    load, before = noise.load_average(), noise.read_throttling()
    timing, anchor_timing = time_alternating(
        workload, beside, device, seconds=seconds, watch=Witness(workload, guard)
    )
    gpu_reasons = noise.read_gpu_reasons() if device.type == "cuda" else None
    throttled = noise.was_throttled(before, noise.read_throttling(), gpu_reasons)
    timing = timing.over(layers.number)
    anchor_timing = (
        timing if pair.is_anchor else anchor_timing and anchor_timing.over(layers.number)
    )
    told = (*pair.warnings, _scatter(timing, load), THROTTLED if throttled else None)
    tokens = layers.batch * (1 if kind == "decode" else layers.context)
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
    layers, number = pair.layers, pair.layers.number
    workload = layers.workload(kind)
    memory = measure_memory(workload, device)
    work = _counted(workload)
    anchor_memory = memory if pair.is_anchor else None
    if pair.anchor:
        anchor_memory = measure_memory(pair.anchor.workload(kind), device)
    return {
        "flops": _share(work.flops, number),
        "touched_bytes": _share(work.touched_bytes, number),
        "peak_bytes": _share(memory.peak_bytes, number),
        "vanilla_peak_bytes": _share(anchor_memory and anchor_memory.peak_bytes, number),
        "memory_source": memory.source,
        "state_bytes": _share(layers.state_bytes, number),
    }


def _share(total: int | None, number: int) -> int | None:
    """One layer's share of what was measured of several."""
    return None if total is None else round(total / number)


def _anchor(cell: Cell, device: torch.device, number: int) -> tuple[Layers | None, str | None]:
    """As many of the anchor's layers, or why they cannot stand beside: it is not the method's."""
    try:
        layers = Layers(parts.load(ANCHOR), cell, device, number)
        trial = layers.workload(cell.kind)
        trial.call(trial.prepare())
    except (MemoryError, RuntimeError) as error:
        return None, f"no ratio: {ANCHOR} failed here with {first_line(error)}"
    return layers, None


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
