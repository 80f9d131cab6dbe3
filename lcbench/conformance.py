"""The laws every method must keep; `lcbench check` and the tests run this same code.

A law is a function that looks for the smallest case which breaks it. Sequences are float64 on the
CPU, with D = 32, H = 4 and T = 67 or twice the declared reach, unless a law says otherwise. The
laws of sight are in `visibility`, those of the state in `streaming`, the others here.
"""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import dataclasses
import datetime
import inspect
import math
import pickle
import random
import re
import time
import typing
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from timeit import Timer
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lcbench import streaming, visibility
from lcbench.method import MethodConfig, MethodSpec
from lcbench.probe import LENGTHS, TOKENS, TOLERANCE, Probe, difference

DTYPES = (torch.float64, torch.float32, torch.bfloat16)

COST_TOLERANCE = 0.35
"""What a measured time exponent may differ by from the declared one before it warns."""

Outcome = Literal["pass", "fail", "warning", "not claimed"]


class Finding(NamedTuple):
    """What came of one law."""

    law: str
    outcome: Outcome
    detail: str
    """For a failure, the smallest case that shows it."""


def _always(probe: Probe) -> bool:
    return True


@dataclass(frozen=True)
class Law:
    """One thing that must hold of every method that claims it."""

    name: str
    broken: Callable[[Probe], str | None]
    """Gives the smallest case that breaks the law, or None; its docstring states the law."""
    claimed: Callable[[Probe], bool] = _always

    @property
    def statement(self) -> str:
        """The law in one sentence."""
        return (self.broken.__doc__ or "").partition("\n")[0]


def _clocks() -> dict[str, object]:
    return {
        "time.perf_counter": time.perf_counter,
        "time.perf_counter_ns": time.perf_counter_ns,
        "torch.cuda.synchronize": torch.cuda.synchronize,
    }


# Taken before a plug-in is loaded, so that one which replaces a clock at import is seen too.
_CLOCKS = _clocks()


def _shape(probe: Probe) -> str | None:
    """Outputs keep shape, dtype and device and are finite; a state comes exactly where claimed."""
    for dtype in DTYPES:
        method = probe.build(dtype)
        for batch in (1, 3):
            for length in (1, *LENGTHS):
                x = probe.tokens(batch, length, dtype)
                y, state = method(x)
                where = f"B={batch}, T={length}, {dtype}"
                if type(y) is not Tensor or (y.shape, y.device) != (x.shape, x.device):
                    return f"{where}: the output is {_describe(y)}, not {_describe(x)}"
                if y.dtype != dtype:
                    return f"{where}: the output is {y.dtype}"
                if not y.isfinite().all():
                    return f"{where}: the output is not finite"
                if (state is not None) != probe.spec.streams:
                    return f"{where}: streams={probe.spec.streams}, but the state is {type(state)}"
                if state is not None and _describe(method(x, state)[0]) != _describe(x):
                    return f"{where}: with a state, the output is not {_describe(x)}"
    return None


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a {type(value).__name__} {list(value.shape)} of {value.dtype} on {value.device}"


def _config(probe: Probe) -> str | None:
    """The defaults are valid; a negative number is refused by an error that names its field."""
    probe.spec.build(probe.shape(), probe.spec.config())
    for name, kind in probe.spec.config.field_types().items():
        if not {int, float} & {kind, *typing.get_args(kind)}:
            continue
        try:
            dataclasses.replace(probe.config, **{name: -1})
        except ValueError as error:
            if name not in str(error):
                return f"{name}=-1 is refused without naming the field: {error}"
        else:
            return f"{name}=-1 is accepted"
    return None


def _metadata(probe: Probe) -> str | None:
    """The spec names its paper; the class is documented, and its module names its source."""
    spec = probe.spec
    title, year, arxiv = spec.paper
    this_year = datetime.datetime.now(datetime.UTC).year
    for name in ("title", "family", "equation"):
        if not getattr(spec, name).strip():
            return f"the {name} is empty"
    if not title.strip():
        return "the paper has no title"
    if not 1990 <= year <= this_year:
        return f"the paper's year is {year}, not in 1990..{this_year}"
    if not re.fullmatch(r"\d\d(0[1-9]|1[0-2])\.\d{4,5}", arxiv):
        return f"the paper's arXiv id is {arxiv!r}, expected one like '1706.03762'"
    if not spec.build.__doc__:
        return f"{spec.build.__qualname__} has no docstring"
    module = inspect.getmodule(spec.build)
    if module is None or "Source:" not in (module.__doc__ or ""):
        return "the module's docstring has no 'Source:'"
    return None


def _gradients(probe: Probe) -> str | None:
    """Newly built, every parameter and every input token gets a finite gradient that is not 0."""
    method = probe.build(jitter=0).train()
    with torch.enable_grad():
        x = probe.tokens(2, probe.context).requires_grad_()
        y: Tensor = method(x)[0]
        loss = (y * probe.tokens(2, probe.context, stream=1)).sum()
        penalty = method.penalty()
        (loss if penalty is None else loss + penalty).backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and (fault := _gradient_fault(parameter.grad)):
            return f"T={probe.context}: the gradient of {name} is {fault}"
    for token in range(probe.context):
        if fault := _gradient_fault(None if x.grad is None else x.grad[:, token]):
            return f"T={probe.context}: the gradient of input token {token} is {fault}"
    return None


def _gradient_fault(gradient: Tensor | None) -> str | None:
    if gradient is None:
        return "missing"
    if not gradient.isfinite().all():
        return "not finite"
    return None if gradient.any() else "0 everywhere"


def _batch(probe: Probe) -> str | None:
    """An example gives alone what it gives in a batch, in any order and beside a louder one."""
    method, x = probe.build(), probe.tokens(3, TOKENS)
    x[1] *= 30
    together: Tensor = method(x)[0]
    order = [2, 0, 1]
    if (gap := difference(method(x[order])[0], together[order])).size > TOLERANCE:
        return f"B=3: reordering the batch moved output {gap.token} by {gap.size:.2g} of scale"
    for example in range(3):
        alone = slice(example, example + 1)
        if (gap := difference(method(x[alone])[0], together[alone])).size > TOLERANCE:
            return (
                f"B=3: example {example} alone differs at output {gap.token} "
                f"by {gap.size:.2g} of scale"
            )
    return None


def _determinism(probe: Probe) -> str | None:
    """Same seed and input, same bits, whatever was called before and whether gradients are kept."""
    method, x = probe.build(), probe.tokens(2, TOKENS)
    kept = x.clone()
    expected: Tensor = method(x)[0]
    if not torch.equal(x, kept):
        return f"T={TOKENS}: the input was modified in place"
    if not torch.equal(method(kept)[0], expected):
        return f"T={TOKENS}: a second call gives another output"
    if not torch.equal(probe.build()(kept)[0], expected):
        return f"T={TOKENS}: a second module of the same seed gives another output"
    for length in (1, 4 * TOKENS, TOKENS):
        _, state = method(probe.tokens(2, length, stream=1))
        if probe.spec.streams:
            method(probe.tokens(2, 1, stream=2), state)
        if not torch.equal(method(kept)[0], expected):
            return f"T={TOKENS}: the output changes after a call of {length} tokens"
    x = probe.tokens(2, probe.context)
    expected = method(x)[0]
    with torch.enable_grad():
        y: Tensor = method(x.requires_grad_())[0]
    # Not bits: fused kernels round otherwise where they keep what a backward pass needs.
    if (gap := difference(y.detach(), expected)).size > TOLERANCE:
        return f"T={probe.context}: where gradients are kept, output {gap.token} is another"
    return None


def _long_context(probe: Probe) -> str | None:
    """At T = 2048, outputs are finite in float32, bfloat16 and autocast, and so are gradients."""
    x = probe.tokens(1, 2048, torch.float32)
    if not probe.build(torch.bfloat16)(x.bfloat16())[0].isfinite().all():
        return "T=2048 in bfloat16: the output is not finite"
    method = probe.build(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if not method(x)[0].isfinite().all():
            return "T=2048 under bfloat16 autocast: the output is not finite"
    with torch.enable_grad():
        x.requires_grad_()
        y: Tensor = method(x)[0]
        if not y.isfinite().all():
            return "T=2048 in float32: the output is not finite"
        y.square().mean().backward()
    gradients = {"the input": x.grad} | {n: p.grad for n, p in method.named_parameters()}
    for name, gradient in gradients.items():
        if gradient is not None and not gradient.isfinite().all():
            return f"T=2048 in float32: the gradient of {name} is not finite"
    return None


def _side_effects(probe: Probe) -> str | None:
    """Loading, building and calling change no clock, default, thread count or random state."""
    for name, clock in _clocks().items():
        if clock is not _CLOCKS[name]:
            return f"{name} was replaced"
    after_build: list[float] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        start = _surroundings()
        method = probe.spec.build(probe.shape(), probe.config).eval()
        built = _surroundings()
        method(probe.tokens(1, TOKENS, torch.float32))
        end = _surroundings()
        built_only = [key for key in built if built[key] != start[key] and key != TORCH_RANDOM]
        if built_only:
            return f"building changed {built_only[0]}"
        if changed := [key for key in end if end[key] != built[key]]:
            return f"a call changed {changed[0]}"
        after_build.append(torch.rand(()).item())
    if after_build[0] == after_build[1]:
        return "building reseeded torch's random state"
    return None


TORCH_RANDOM = "torch's random state"


def _surroundings() -> dict[str, object]:
    """What a method must leave as it found it; only building may draw from torch's generator."""
    return {
        **_clocks(),
        TORCH_RANDOM: torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": pickle.dumps(np.random.get_state()),  # noqa: NPY002 -- the one watched
        "Python's random state": random.getstate(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the number of threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }


LAWS: tuple[Law, ...] = (
    Law("metadata", _metadata),
    Law("config", _config),
    Law("side-effects", _side_effects),
    Law("shape", _shape),
    Law("determinism", _determinism),
    Law("batch", _batch),
    Law("gradients", _gradients),
    Law("causality", visibility.causality, lambda probe: probe.spec.causal),
    Law("two-sided", visibility.two_sided, lambda probe: probe.spec.bidirectional),
    Law("reach", visibility.reach),
    Law("weights", visibility.weights, visibility.gives_weights),
    Law("shift", visibility.shift, lambda p: None not in (p.reach, p.spec.shift_period(p.config))),
    Law(
        "segments",
        streaming.segments,
        lambda probe: probe.spec.streams and probe.spec.segment_exact,
    ),
    Law("state-value", streaming.state_value, lambda probe: probe.spec.streams),
    Law("state-growth", streaming.state_growth, lambda probe: probe.spec.streams),
    Law("long-context", _long_context),
)
"""In the order they are checked: the cheap and the basic first."""


@contextmanager
def _undisturbed() -> Generator[None]:
    """Without gradients, with a random state to spend, and on one thread.

    Sequences this short gain nothing from a second thread, and where the cores are busy the threads
    wait for each other: a check then took ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def check_law(
    law: Law, spec: MethodSpec, config: MethodConfig | None = None, *, seed: int = 0
) -> Finding:
    """Look for a case that breaks one law; an exception on the way is a failure, not an error."""
    asked = Probe(spec, spec.config() if config is None else config, seed)
    probe = asked.shrunk()
    try:
        with _undisturbed():
            if not law.claimed(probe):
                return Finding(law.name, "not claimed", "")
            broken = law.broken(probe)
    except Exception as error:  # noqa: BLE001 -- a method may raise anything
        first_line = str(error).partition("\n")[0]
        broken = f"{type(error).__name__}: {first_line}"
    if broken is None:
        return Finding(law.name, "pass", "")
    shrunk = f"{probe.config.assignments()}: " if probe != asked else ""
    return Finding(law.name, "fail", shrunk + broken)


def check_method(
    spec: MethodSpec, config: MethodConfig | None = None, *, seed: int = 0, cost: bool = False
) -> list[Finding]:
    """Check a method against every law.

    Args:
        spec: The method.
        config: Its configuration; the defaults unless given. Where its reach is too long to
            measure, integers are halved until it is not, and a failure says so.
        seed: Of parameters, inputs and cuts.
        cost: Time it as well, which takes seconds and on a busy machine can only warn.

    Returns:
        One finding a law, in the order of `LAWS`.
    """
    findings = [check_law(law, spec, config, seed=seed) for law in LAWS]
    if cost:
        declared, measured = spec.cost.time, measure_cost(spec, config, seed=seed)
        detail = f"time exponent {measured:.2f} from T=4096 to 16384, declared is {declared:g}"
        within = abs(measured - declared) <= COST_TOLERANCE
        findings.append(Finding("cost", "pass" if within else "warning", detail))
    return findings


@_undisturbed()
def measure_cost(spec: MethodSpec, config: MethodConfig | None = None, *, seed: int = 0) -> float:
    """Exponent in T of a forward pass's time between 4096 and 16384 tokens, on one thread."""
    probe = Probe(spec, spec.config() if config is None else config, seed)
    method = probe.build(torch.float32)
    seconds: list[float] = []
    for length in (4096, 16384):
        x = probe.tokens(1, length, torch.float32)
        timer = Timer("method(x)", globals={"method": method, "x": x})
        repeats = min(20, 2 + int(0.5 / timer.timeit(1)))
        # The least of them: what else runs on the machine only ever adds to a time.
        seconds.append(min(timer.repeat(repeats, number=1)))
    return math.log(seconds[1] / seconds[0], 4)
