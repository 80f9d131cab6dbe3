"""Clock, repeats, peak memory: what one call costs on this device.

Time: two workloads in alternation (A B B A), so that a drift of the machine's speed hits both;
fresh inputs for every call; warm-up until two calls in a row agree; medians. CUDA is timed with its
own events, its cache emptied before each call. What a workload gives is read on the clock, one sum
over each tensor, so that a result that is not there yet costs what it takes to come. Not with
`torch.utils.benchmark`: it repeats one statement on one set of inputs, and neither alternates nor
prepares between repeats. Memory: the peak of what is allocated above what stood before the call,
from CUDA's allocator or, on CPU, from the profiler's record of every allocation: exact and
repeatable, where the resident set is neither.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd.profiler import profile

MOST_REPEATS = 200
FEWEST_ROUNDS = 2
"""Rounds of A B B A below which no median is given."""
WARM_UP_CALLS = 5
WARM_UP_AGREEMENT = 0.1
FLUSHED_CACHES = 4
"""How many times CUDA's last cache is written over before a call: it evicts by no strict order."""


LATE_NS = 50_000
"""What waiting for an idle GPU may take beyond its latency, before it is work on another stream."""


class Workload(NamedTuple):
    """Something to time: `call(prepare())`, of which only `call` and reading are on the clock."""

    prepare: Callable[[], Any]
    call: Callable[[Any], object]
    copy: Callable[[Any], Any] | None = None
    """What was prepared once more, at other addresses; None where nobody calls it again."""


class Outputs(NamedTuple):
    """What a call gives, for those who look at it."""

    read: tuple[Tensor, ...]
    """Read on the clock."""
    rest: tuple[Tensor | None, ...] = ()
    """What else must be the same in another call with the same inputs."""
    state: object = None
    """Kept alive with them."""


class Watch(Protocol):
    """Looks on while a workload is timed; told off the clock, before and after each call."""

    def begin(self, inputs: Any) -> None:
        """A call with these inputs comes next."""
        ...

    def end(self, outputs: Outputs, sums: list[Tensor]) -> None:
        """It gave these outputs, of which the clock has seen these sums."""
        ...

    def insist(self) -> bool:
        """Whether it wants to see one more call, though the timing is over."""
        ...


class Timing(NamedTuple):
    """Every repeat of one workload, in nanoseconds, and their summary."""

    repeats_ns: list[int]
    median_ms: float
    iqr_ms: float

    @classmethod
    def of(cls, repeats_ns: list[int]) -> "Timing":
        """Summarise repeats."""
        low, middle, high = np.percentile(repeats_ns, [25, 50, 75]) / 1e6
        return cls(repeats_ns, float(middle), float(high - low))

    def over(self, number: int) -> "Timing":
        """The share of one of `number` equal parts of the workload."""
        if number == 1:
            return self
        return Timing.of([max(1, round(repeat / number)) for repeat in self.repeats_ns])


def time_alternating(
    first: Workload,
    second: Workload | None,
    device: torch.device,
    *,
    seconds: float,
    watch: Watch | None = None,
) -> tuple[Timing, Timing | None]:
    """Time one workload, or two in alternation.

    Args:
        first: The workload in question.
        second: The one to compare it with in the same breath, or None.
        device: Where they run.
        seconds: Go on until this much time is on the clock, but for at least `FEWEST_ROUNDS`
            rounds and at most `MOST_REPEATS` repeats of each.
        watch: Looks on at the first workload's calls.
    """
    workloads = [first] if second is None else [first, second]
    time_once = choose_timer(device)
    watches = [watch, None]
    for workload in workloads:
        _warm_up(workload, time_once)
    repeats: list[list[int]] = [[] for _ in workloads]
    order = [0, 0] if second is None else [0, 1, 1, 0]
    rounds = 0
    while rounds < FEWEST_ROUNDS or sum(map(sum, repeats)) < seconds * 1e9:
        for index in order:
            repeats[index].append(time_once(workloads[index], watches[index]))
        rounds += 1
        if len(repeats[0]) + 2 > MOST_REPEATS:
            break
    while watch and watch.insist():
        time_once(first, watch)
    timings = [Timing.of(times) for times in repeats]
    return timings[0], timings[1] if second is not None else None


class TimeOnce(Protocol):
    """Prepares and calls a workload once; gives the nanoseconds of the call, at least 1."""

    def __call__(self, workload: Workload, watch: Watch | None = None) -> int:
        """Time one call, which a watch may look at."""
        ...


def choose_timer(device: torch.device) -> TimeOnce:
    """How one call is timed on a device."""
    if device.type == "cuda":
        cache_bytes: int = torch.cuda.get_device_properties(device).L2_cache_size
        flush = torch.empty(FLUSHED_CACHES * cache_bytes, dtype=torch.uint8, device=device)
        return partial(_time_by_events, device, flush)
    return partial(_time_by_clock, device)


def _warm_up(workload: Workload, time_once: TimeOnce) -> None:
    before = 0
    for _ in range(WARM_UP_CALLS):
        now = time_once(workload)
        if before and abs(now - before) <= WARM_UP_AGREEMENT * before:
            return
        before = now


def _time_by_events(
    device: torch.device, flush: Tensor, workload: Workload, watch: Watch | None = None
) -> int:
    # By names of its own: what is replaced while a call runs is not what it is timed with.
    clock, wait, total = perf_counter_ns, torch.cuda.synchronize, torch.sum
    inputs = workload.prepare()
    if watch:
        watch.begin(inputs)
    flush.zero_()  # inputs just written, or what the call before left, would be found in the cache
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(device)
    # From an idle device, so that the time to launch the call's kernels is part of it, as in use.
    wait(device)
    start.record(stream)
    result = workload.call(inputs)
    sums = [total(part.detach()) for part in result.read] if isinstance(result, Outputs) else []
    end.record(stream)
    end.synchronize()
    # Another stream may still be at work, of which this one's events know nothing.
    began = clock()
    wait(device)
    late = clock() - began
    took = round(start.elapsed_time(end) * 1e6) + (late if late > LATE_NS else 0)
    if watch and isinstance(result, Outputs):
        watch.end(result, sums)
    del result
    return max(1, took)


def _time_by_clock(device: torch.device, workload: Workload, watch: Watch | None = None) -> int:
    # By names of its own: what is replaced while a call runs is not what it is timed with.
    clock, wait, total = perf_counter_ns, synchronize, torch.sum
    inputs = workload.prepare()
    if watch:
        watch.begin(inputs)
    wait(device)
    began = clock()
    result = workload.call(inputs)
    sums = [total(part.detach()) for part in result.read] if isinstance(result, Outputs) else []
    wait(device)
    took = clock() - began
    if watch and isinstance(result, Outputs):
        watch.end(result, sums)
    del result
    return max(1, took)


def synchronize(device: torch.device) -> None:
    """Wait for all work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Memory(NamedTuple):
    """Peak bytes of one call above what stood before it, and the instrument that saw them."""

    peak_bytes: int | None
    source: str


def measure_memory(workload: Workload, device: torch.device) -> Memory:
    """Peak bytes allocated while one call runs, above what is allocated when it starts."""
    inputs = workload.prepare()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = workload.call(inputs)
        torch.cuda.synchronize(device)
        del result
        return Memory(torch.cuda.max_memory_allocated(device) - before, "cuda_allocator")
    if device.type == "cpu":
        # Not torch.profiler: its start imports the compiler, which takes longer than most cells.
        record = profile(profile_memory=True)
        with record:
            result = workload.call(inputs)
        peak = _profiled_peak(record)
        del result
        return Memory(peak, "cpu_profiler")
    return Memory(None, "none")


def _profiled_peak(record: profile) -> int:
    """The highest running sum of the allocations and releases a profile saw."""
    results = record.kineto_results
    assert results is not None
    events: list[Any] = results.events()  # torch's stubs leave out `nbytes`
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    changes.sort(key=lambda change: change[0])
    running = np.cumsum([size for _, size in changes])
    return max(0, int(running.max())) if len(running) else 0
