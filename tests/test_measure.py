from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench import measure
from lcbench.measure import Memory, Timing, Workload, measure_memory, time_alternating

CPU = torch.device("cpu")
KIB = 1024


def peak_of(call: Callable[[Any], object], prepare: Callable[[], Any] = lambda: None) -> int:
    memory = measure_memory(Workload(prepare, call), CPU)
    assert memory.source == "cpu_profiler"
    assert memory.peak_bytes is not None
    return memory.peak_bytes


def kibibytes(count: int) -> Tensor:
    return torch.empty(count * KIB, dtype=torch.uint8)


def test_the_peak_of_tensors_of_known_size_is_exact_and_repeatable() -> None:
    def hold_three(_: None) -> list[Tensor]:
        return [kibibytes(64), kibibytes(128), kibibytes(256)]

    assert [peak_of(hold_three) for _ in range(3)] == [448 * KIB] * 3


def test_what_is_freed_before_more_is_allocated_is_not_added_up() -> None:
    def one_after_another(_: None) -> None:
        for _ in range(5):
            big = kibibytes(512)
            del big

    assert peak_of(one_after_another) == 512 * KIB


def test_a_peak_in_the_middle_counts() -> None:
    def rise_and_fall(_: None) -> Tensor:
        kept = kibibytes(64)
        big = kibibytes(1024)
        del big
        return kept

    assert peak_of(rise_and_fall) == 1088 * KIB


def test_inputs_stand_before_the_call_and_are_not_counted() -> None:
    assert peak_of(torch.neg, lambda: torch.zeros(KIB)) == 4 * KIB


def test_a_call_that_allocates_nothing_peaks_at_nothing() -> None:
    assert peak_of(torch.neg_, lambda: torch.zeros(KIB)) == 0
    assert peak_of(lambda _: None) == 0


def test_naive_softmax_shows_its_square_and_fused_attention_does_not() -> None:
    heads, length, width = 4, 512, 16
    square = heads * length * length * 4

    def inputs() -> tuple[Tensor, ...]:
        return tuple(torch.randn(1, heads, length, width) for _ in range(3))

    def naive(qkv: tuple[Tensor, ...]) -> Tensor:
        q, k, v = qkv
        return torch.softmax(q @ k.mT, -1) @ v

    def fused(qkv: tuple[Tensor, ...]) -> Tensor:
        return F.scaled_dot_product_attention(*qkv)

    assert peak_of(naive, inputs) >= 2 * square
    assert peak_of(fused, inputs) < square / 2
    assert peak_of(naive, inputs) == peak_of(naive, inputs)


def test_the_backward_pass_is_weighed_too() -> None:
    weight = torch.randn(64, 64, requires_grad=True)

    def step(x: Tensor) -> None:
        weight.grad = None
        (x @ weight).square().sum().backward()

    output, gradient = 256 * 64 * 4, 64 * 64 * 4
    assert peak_of(step, lambda: torch.randn(256, 64)) >= output + gradient


def test_memory_is_not_made_up_where_nothing_can_see_it() -> None:
    workload = Workload(lambda: None, lambda _: None)
    assert measure_memory(workload, torch.device("meta")) == Memory(None, "none")


class Recorder:
    """Workloads that write down when they are prepared and called; each call takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.log, self.inputs = 0, [], []
        monkeypatch.setattr(measure, "perf_counter_ns", lambda: self.now)

    def workload(self, name: str, durations_ns: Iterator[int] | int) -> Workload:
        def prepare() -> object:
            self.now += 10**9
            return object()

        def call(given: object) -> None:
            self.log.append(name)
            self.inputs.append(given)
            self.now += durations_ns if isinstance(durations_ns, int) else next(durations_ns)

        return Workload(prepare, call)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def test_two_workloads_are_timed_in_turns_a_b_b_a(recorder: Recorder) -> None:
    first, second = recorder.workload("A", 100), recorder.workload("B", 300)
    one, two = time_alternating(first, second, CPU, seconds=0)
    assert "".join(recorder.log) == "AABB" + "ABBAABBA"
    assert two is not None
    assert one.repeats_ns == [100] * 4
    assert two.repeats_ns == [300] * 4


def test_the_clock_runs_for_the_call_alone(recorder: Recorder) -> None:
    one, _ = time_alternating(recorder.workload("A", 2_000_000), None, CPU, seconds=0)
    assert one.median_ms == 2.0
    assert one.iqr_ms == 0.0


def test_a_drift_of_the_machine_hits_both_alike(recorder: Recorder) -> None:
    def drifting() -> Iterator[int]:
        # Calls in the order they happen: warm-up of both, then A B B A.
        yield from (1000, 1000, 1000, 1000)
        yield from range(1000, 9000, 100)

    shared = drifting()
    first, second = recorder.workload("A", shared), recorder.workload("B", shared)
    one, two = time_alternating(first, second, CPU, seconds=0)
    assert two is not None
    assert sum(one.repeats_ns) == sum(two.repeats_ns)


def test_one_workload_alone_gives_no_second_timing(recorder: Recorder) -> None:
    one, two = time_alternating(recorder.workload("A", 100), None, CPU, seconds=0)
    assert two is None
    assert len(one.repeats_ns) == 4


def test_every_call_has_inputs_of_its_own(recorder: Recorder) -> None:
    first, second = recorder.workload("A", 100), recorder.workload("B", 100)
    time_alternating(first, second, CPU, seconds=0)
    assert len({id(given) for given in recorder.inputs}) == len(recorder.log)


def test_timing_goes_on_for_the_seconds_asked(recorder: Recorder) -> None:
    first, second = recorder.workload("A", 10_000_000), recorder.workload("B", 10_000_000)
    one, two = time_alternating(first, second, CPU, seconds=1.0)
    assert two is not None
    assert len(one.repeats_ns) == len(two.repeats_ns) == 50


@pytest.mark.parametrize("alone", [True, False])
def test_repeats_are_bounded_however_short_a_call(recorder: Recorder, alone: bool) -> None:
    second = None if alone else recorder.workload("B", 1)
    timings = time_alternating(recorder.workload("A", 1), second, CPU, seconds=60.0)
    for timing in filter(None, timings):
        assert len(timing.repeats_ns) == measure.MOST_REPEATS


def test_a_slow_call_is_still_repeated(recorder: Recorder) -> None:
    one, _ = time_alternating(recorder.workload("A", 10**11), None, CPU, seconds=0.1)
    assert len(one.repeats_ns) == 2 * measure.FEWEST_ROUNDS


def test_warm_up_goes_on_until_two_calls_agree(recorder: Recorder) -> None:
    durations = iter([9000, 5000, 2000, 1950, *[1000] * 4])
    one, _ = time_alternating(recorder.workload("A", durations), None, CPU, seconds=0)
    assert one.repeats_ns == [1000] * 4


def test_warm_up_ends_when_calls_never_agree(recorder: Recorder) -> None:
    durations = iter([2**n for n in range(measure.WARM_UP_CALLS)] + [1000] * 4)
    one, _ = time_alternating(recorder.workload("A", durations), None, CPU, seconds=0)
    assert one.repeats_ns == [1000] * 4


def test_a_call_too_fast_for_the_clock_is_never_zero(recorder: Recorder) -> None:
    one, _ = time_alternating(recorder.workload("A", 0), None, CPU, seconds=0)
    assert min(one.repeats_ns) > 0


def test_the_summary_is_median_and_interquartile_range() -> None:
    timing = Timing.of([5_000_000, 1_000_000, 4_000_000, 2_000_000, 3_000_000])
    assert timing.median_ms == 3.0
    assert timing.iqr_ms == 2.0
    assert timing.repeats_ns[0] == 5_000_000


def test_one_outlier_does_not_move_the_median() -> None:
    timing = Timing.of([1_000_000] * 9 + [1_000_000_000])
    assert timing.median_ms == 1.0
    assert timing.iqr_ms == 0.0


def test_real_work_takes_real_time() -> None:
    def work(x: Tensor) -> Tensor:
        return x @ x

    big, small = (Workload(lambda n=n: torch.randn(n, n), work) for n in (512, 16))
    slow, fast = time_alternating(big, small, CPU, seconds=0)
    assert fast is not None
    assert slow.median_ms > fast.median_ms > 0


class FakeCuda:
    """Events and streams that write down what happens, for the order of things on a GPU."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, elapsed_ms: float, late_ns: int = 0
    ) -> None:
        self.log: list[str] = []
        now = [0]
        made: list[str] = []
        log = self.log

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing
                self.name = ["start", "end"][len(made) % 2]
                made.append(self.name)

            def record(self, stream: object) -> None:
                assert stream == "stream"
                log.append(self.name)

            def synchronize(self) -> None:
                log.append(f"wait for {self.name}")

            def elapsed_time(self, other: "Event") -> float:
                assert (self.name, other.name) == ("start", "end")
                return elapsed_ms

        class Properties:
            L2_cache_size = 1000

        monkeypatch.setattr(torch.cuda, "Event", Event)

        def wait(device: object) -> None:
            log.append("wait")
            now[0] += late_ns

        monkeypatch.setattr(measure, "perf_counter_ns", lambda: now[0])
        monkeypatch.setattr(torch.cuda, "synchronize", wait)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)

    def flush(self) -> Any:
        log = self.log

        class Flush:
            def zero_(self) -> None:
                log.append("flush")

        return Flush()

    def workload(self) -> Workload:
        return Workload(lambda: self.log.append("prepare"), lambda _: self.log.append("call"))


def test_cuda_is_timed_between_events_on_an_idle_device_with_a_cold_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda(monkeypatch, elapsed_ms=1.5)
    took = measure._time_by_events(torch.device("cuda"), fake.flush(), fake.workload())
    assert took == 1_500_000
    assert fake.log == ["prepare", "flush", "wait", "start", "call", "end", "wait for end", "wait"]


@pytest.mark.parametrize(
    ("late_ns", "took_ns"), [(measure.LATE_NS, 1_500_000), (2_000_000, 3_500_000)]
)
def test_what_another_stream_still_does_when_the_call_has_ended_counts(
    monkeypatch: pytest.MonkeyPatch, late_ns: int, took_ns: int
) -> None:
    fake = FakeCuda(monkeypatch, elapsed_ms=1.5, late_ns=late_ns)
    device = torch.device("cuda")
    assert measure._time_by_events(device, fake.flush(), fake.workload()) == took_ns


def test_a_kernel_below_the_events_resolution_is_never_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda(monkeypatch, elapsed_ms=0.0)
    assert measure._time_by_events(torch.device("cuda"), fake.flush(), fake.workload()) == 1


def test_what_is_flushed_is_larger_than_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch, elapsed_ms=1.0)
    asked: list[tuple[int, object]] = []

    def empty(size: int, *, dtype: torch.dtype, device: torch.device) -> None:
        asked.append((size * dtype.itemsize, device.type))

    monkeypatch.setattr(torch, "empty", empty)
    measure.choose_timer(torch.device("cuda"))
    assert asked == [(measure.FLUSHED_CACHES * 1000, "cuda")]
    assert measure.FLUSHED_CACHES >= 2
