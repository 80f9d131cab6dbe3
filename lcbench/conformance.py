"""The laws every method must keep; `lcbench check` and the tests run this same code.

A law is a function that looks for the smallest case which breaks it. Sequences are float64 on the
CPU, with D = 32, H = 4 and T = 67 or twice the declared reach, unless a law says otherwise. The
laws of sight are in `visibility`, those of the state in `streaming`, of training in `gradients`, of
cost in `growth`, of what is left alone in `surroundings`, the others here.
"""

# torch leaves a part of its surface untyped.
# pyright: reportUnknownMemberType=false

import dataclasses
import datetime
import inspect
import math
import re
import signal
import threading
import typing
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lcbench import gradients, growth, streaming, surroundings, visibility
from lcbench.method import Method, MethodConfig, MethodSpec
from lcbench.parts import resolve
from lcbench.probe import LENGTHS, TOKENS, TOLERANCE, Kept, Probe, difference

DTYPES = (torch.float64, torch.float32, torch.bfloat16)

Outcome = Literal["pass", "fail", "warning", "not claimed", "undecided"]


class Finding(NamedTuple):
    """What came of one law."""

    law: str
    outcome: Outcome
    detail: str
    """For a failure, the smallest case that shows it."""


WORST_FIRST: tuple[Outcome, ...] = ("fail", "undecided", "warning", "pass", "not claimed")


class OutOfTimeError(BaseException):
    """The time for a check is up; not an `Exception`, which a method may catch."""


def _always(probe: Probe) -> bool:
    return True


def _at_defaults(probe: Probe) -> bool:
    return probe.config == probe.spec.config()


@dataclass(frozen=True)
class Law:
    """One thing that must hold of every method that claims it."""

    name: str
    broken: Callable[[Probe], str | Kept | None]
    """Gives the smallest case that breaks the law, or not; its docstring states the law."""
    claimed: Callable[[Probe], bool] = _always
    fault: Outcome = "fail"
    """What breaking it comes to."""
    of_the_whole: bool = False
    """Is about the file of a method, not about its layers."""
    shrinks: bool = True
    """May be checked at a shorter reach than the configuration's."""

    @property
    def statement(self) -> str:
        """The law in one sentence."""
        return (self.broken.__doc__ or "").partition("\n")[0]


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
    resolve(probe.spec, probe.spec.config()).build(probe.shape())
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
    declared = spec.build if spec.parts is None else spec.config
    if not declared.__doc__:
        return f"{declared.__qualname__} has no docstring"
    module = inspect.getmodule(declared)
    if module is None or "Source:" not in (module.__doc__ or ""):
        return "the module's docstring has no 'Source:'"
    return None


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
    first, second = (_trained(method, x, probe.seed) for _ in range(2))
    if not all(map(torch.equal, first, second)):
        return f"T={probe.context}: in training, one seed gives two outputs or two gradients"
    return None


@torch.enable_grad()
def _trained(method: Method, x: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Output and gradients of one training step under a seed."""
    torch.manual_seed(seed)
    leaves = [p for p in (x, *method.parameters()) if p.requires_grad]
    y: Tensor = method.train()(x)[0]
    return y, *torch.autograd.grad(y.sum(), leaves, materialize_grads=True)


def _long_context(probe: Probe) -> str | None:
    """At T = 4096, outputs are finite in float32, bfloat16 and autocast, and so are gradients."""
    x = probe.tokens(1, 4096, torch.float32)
    if not probe.build(torch.bfloat16)(x.bfloat16())[0].isfinite().all():
        return "T=4096 in bfloat16: the output is not finite"
    method = probe.build(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if not method(x)[0].isfinite().all():
            return "T=4096 under bfloat16 autocast: the output is not finite"
    with torch.enable_grad():
        x.requires_grad_()
        y: Tensor = method(x)[0]
        if not y.isfinite().all():
            return "T=4096 in float32: the output is not finite"
        y.square().mean().backward()
    gradients = {"the input": x.grad} | {n: p.grad for n, p in method.named_parameters()}
    for name, gradient in gradients.items():
        if gradient is not None and not gradient.isfinite().all():
            return f"T=4096 in float32: the gradient of {name} is not finite"
    return None


LAWS: tuple[Law, ...] = (
    Law("metadata", _metadata, of_the_whole=True),
    Law("config", _config, of_the_whole=True),
    Law("side-effects", surroundings.side_effects),
    Law("shape", _shape),
    Law("determinism", _determinism),
    Law("batch", _batch),
    Law("gradients", gradients.arrival),
    Law("slope", gradients.slope, lambda probe: probe.spec.gradient_exact),
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
    Law("memory", growth.memory, _at_defaults, shrinks=False),
)
"""In the order they are checked: the cheap and the basic first."""

TIMED_LAWS: tuple[Law, ...] = (
    Law("time", growth.time, _at_defaults, fault="warning", shrinks=False),
)
"""What only a quiet machine can tell."""


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
    """Look for a case that breaks one law; an exception on the way is a failure, not an error.

    Of a method made of parts each part is checked in the first layer that it stands in.
    """
    config = spec.config() if config is None else config
    if law.of_the_whole or spec.parts is None:
        return _check(law, Probe(spec, config, seed))
    parts = resolve(spec, config).parts
    findings: dict[str, Finding] = {}
    for layer, part in enumerate(parts):
        if part.request not in findings:
            probe = Probe(part.spec, part.config, seed, layer, len(parts))
            found = _check(law, probe)
            told = found.detail and f"layer {layer}, {part.request}: {found.detail}"
            findings[part.request] = found._replace(detail=told)
    by_outcome = {finding.outcome: finding for finding in reversed(findings.values())}
    worst = next(by_outcome[o] for o in WORST_FIRST if o in by_outcome)
    if worst.outcome == "pass":
        told = "; ".join(finding.detail for finding in findings.values() if finding.detail)
        return worst._replace(detail=told)
    return worst


def _check(law: Law, asked: Probe) -> Finding:
    probe = asked.shrunk() if law.shrinks else asked
    try:
        with _undisturbed():
            if not law.claimed(probe):
                return Finding(law.name, "not claimed", "")
            broken = law.broken(probe)
    except Exception as error:  # noqa: BLE001 -- a method may raise anything
        first_line = str(error).partition("\n")[0]
        return Finding(law.name, "fail", f"{type(error).__name__}: {first_line}")
    if broken is None or isinstance(broken, Kept):
        return Finding(law.name, "pass", broken.detail if broken else "")
    shrunk = f"{probe.config.assignments()}: " if probe != asked else ""
    return Finding(law.name, law.fault, shrunk + broken)


def check_method(
    spec: MethodSpec,
    config: MethodConfig | None = None,
    *,
    seed: int = 0,
    cost: bool = True,
    seconds: float | None = None,
) -> list[Finding]:
    """Check a method against every law.

    Args:
        spec: The method.
        config: Its configuration; the defaults unless given. Where its reach is too long to
            measure, integers are halved until it is not, and a failure says so.
        seed: Of parameters, inputs and cuts.
        cost: Time it as well, which takes seconds and can only warn: machines are noisy.
        seconds: Longest it may take; laws it does not come to are `undecided`. Within a law only
            the main thread of a POSIX system is interrupted.

    Returns:
        One finding a law, in the order of `LAWS`, and the timed ones after them.
    """
    laws = LAWS + TIMED_LAWS if cost else LAWS
    end = math.inf if seconds is None else monotonic() + seconds
    findings: list[Finding] = []
    for law in laws:
        try:
            with _interrupted_at(end):
                findings.append(check_law(law, spec, config, seed=seed))
        except OutOfTimeError:
            findings.append(Finding(law.name, "undecided", f"the check's {seconds:g} s were over"))
    return findings


@contextmanager
def _interrupted_at(end: float) -> Generator[None]:
    """Raise `OutOfTimeError` in what is run once the monotonic clock is past `end`."""
    can = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if math.isinf(end) or not can:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    # Again and again: what is raised where Python cannot pass it on, in a destructor say, is lost.
    signal.setitimer(signal.ITIMER_REAL, max(1e-3, end - monotonic()), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
