"""The instruments on a CUDA device, against work of known size. Skipped where there is none."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lcbench import errands, measure, noise, registry
from lcbench import train as training
from lcbench.counting import count_work
from lcbench.curve import MOST_POINTS, CurveRecorder
from lcbench.isolation import Send, Verdict, call
from lcbench.measure import Workload, measure_memory, time_alternating
from lcbench.model import Backbone
from lcbench.registry import load_suite
from lcbench.suite import Cell, MethodCard, ModelPlan, Selection, TaskCard, TaskPlan, plan_cells

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
KIB = 1024


def spinning(cycles: int) -> Workload:
    """A kernel that does nothing for so many clock cycles, launched in no time."""
    return Workload(lambda: None, lambda _: torch.cuda._sleep(cycles))


def test_a_kernel_of_four_times_the_cycles_takes_four_times_as_long() -> None:
    # Long enough, some 5 and 20 ms, that launching it does not count.
    short, long = time_alternating(spinning(10**7), spinning(4 * 10**7), CUDA, seconds=0.5)
    assert long is not None
    assert long.median_ms / short.median_ms == pytest.approx(4.0, rel=0.1)


def test_work_that_is_still_under_way_when_the_call_returns_is_timed() -> None:
    (timing, _) = time_alternating(spinning(10**7), None, CUDA, seconds=0)
    # No GPU runs at 10 GHz.
    assert timing.median_ms > 1.0


def test_what_a_call_prepares_is_not_timed() -> None:
    busy = Workload(lambda: torch.cuda._sleep(4 * 10**7), lambda _: torch.cuda._sleep(10**6))
    idle = spinning(10**6)
    one, two = time_alternating(busy, idle, CUDA, seconds=0.2)
    assert two is not None
    assert one.median_ms < 3 * two.median_ms


def test_a_call_finds_nothing_in_the_cache_that_the_one_before_left() -> None:
    cache_bytes = torch.cuda.get_device_properties(CUDA).L2_cache_size
    x = torch.ones(cache_bytes // 4 // 4, device=CUDA)
    reading = Workload(lambda: x, torch.sum)
    cold = measure.choose_timer(CUDA)
    nothing = torch.empty(1, dtype=torch.uint8, device=CUDA)

    def warm(workload: Workload) -> int:
        return measure._time_by_events(CUDA, nothing, workload)

    times: dict[str, list[int]] = {"cold": [], "warm": []}
    for _ in range(200):
        times["cold"].append(cold(reading))
        warm(reading)  # brings x in again
        times["warm"].append(warm(reading))
    assert np.median(times["cold"][20:]) > np.median(times["warm"][20:])


def peak_of(call: Callable[[Any], object], prepare: Callable[[], Any] = lambda: None) -> int:
    memory = measure_memory(Workload(prepare, call), CUDA)
    assert memory.source == "cuda_allocator"
    assert memory.peak_bytes is not None
    return memory.peak_bytes


def kibibytes(count: int) -> Tensor:
    """Whole KiB: the allocator hands out multiples of 512 bytes."""
    return torch.empty(count * KIB, dtype=torch.uint8, device=CUDA)


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


def test_a_peak_before_the_call_is_not_the_calls() -> None:
    big = kibibytes(4096)
    del big
    assert peak_of(lambda _: kibibytes(64)) == 64 * KIB


def test_inputs_stand_before_the_call_and_are_not_counted() -> None:
    assert peak_of(torch.neg, lambda: torch.zeros(KIB, device=CUDA)) == 4 * KIB


def test_naive_softmax_shows_its_square_and_fused_attention_does_not() -> None:
    heads, length, width = 4, 2048, 64
    square = heads * length * length * 2

    def inputs() -> tuple[Tensor, ...]:
        return tuple(
            torch.randn(1, heads, length, width, device=CUDA, dtype=torch.float16) for _ in range(3)
        )

    def naive(qkv: tuple[Tensor, ...]) -> Tensor:
        q, k, v = qkv
        return torch.softmax(q @ k.mT, -1) @ v

    def fused(qkv: tuple[Tensor, ...]) -> Tensor:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
            return F.scaled_dot_product_attention(*qkv)

    for attend in (naive, fused):
        attend(inputs())  # the first product takes a workspace that stays
    assert peak_of(naive, inputs) >= 2 * square
    assert peak_of(fused, inputs) < square / 2
    assert peak_of(naive, inputs) == peak_of(naive, inputs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_every_fused_attention_is_counted_by_the_pairs_it_may_see(
    causal: bool, dtype: torch.dtype
) -> None:
    batch, heads, length, width = 2, 3, 256, 64

    def inputs() -> list[Tensor]:
        sizes = (batch, heads, length, width)
        return [torch.randn(sizes, device=CUDA, dtype=dtype, requires_grad=True) for _ in range(3)]

    def step(qkv: list[Tensor]) -> None:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
            F.scaled_dot_product_attention(*qkv, is_causal=causal).sum().backward()

    pairs = length * (length + 1) // 2 if causal else length * length
    flops = count_work(Workload(inputs, step)).flops
    assert flops == (2 + 5) * 2 * batch * heads * width * pairs


def test_training_waits_for_the_device_as_often_in_forty_steps_as_in_ten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "REPORT_EVERY_S", 1e9)
    spec, task_spec = registry.load_method("vanilla"), registry.load_task("mqar")
    task = task_spec.build(task_spec.config(), "train")
    waits: list[int] = []
    for steps in (10, 10, 40):  # the first warms up
        model = Backbone(
            ModelPlan(d_model=32, num_layers=1, num_heads=2), task.vocab_size,
            lambda shape: spec.build(shape, spec.config()), train_context=128, seed=0,
        ).to(CUDA)  # fmt: skip
        plan = TaskPlan(
            task="mqar", train_context=128, contexts=(128,), batch=4, steps=steps,
            learning_rates=(1e-2,),
        )  # fmt: skip
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                training.train(
                    model, task, plan, {"seed": 0},
                    learning_rate=1e-2, dtype=torch.float32, report=lambda report: None,
                )  # fmt: skip
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchronizing CUDA" in str(w.message) for w in caught))
    assert waits[1] == waits[2]


def test_a_curve_tells_the_devices_time_and_holds_nothing_up() -> None:
    loss, steps = torch.ones((), device=CUDA), 64
    torch.stack([loss]).mean().item()  # warms up
    began = time.monotonic()
    recorder = CurveRecorder(steps, CUDA)
    for _ in range(steps):
        torch.cuda._sleep(10**7)
        recorder.add(loss)
    launched = time.monotonic() - began
    told = recorder.curve()
    passed = time.monotonic() - began
    assert launched < 0.5 * passed, "the host waited for the device"
    assert told.loss_nats == [1.0] * MOST_POINTS
    assert told.seconds == sorted(told.seconds)
    assert told.seconds[-1] == pytest.approx(passed, rel=0.1)
    halfway = told.seconds[len(told.seconds) // 2 - 1]
    assert halfway == pytest.approx(told.seconds[-1] / 2, rel=0.2)


def take_too_much(send: Send) -> None:
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.empty(2 * total, dtype=torch.uint8, device=CUDA)


def take_a_little(send: Send) -> int:
    return torch.empty(KIB, dtype=torch.uint8, device=CUDA).nbytes


def test_running_out_of_the_devices_memory_is_told_and_leaves_the_next_call_alone() -> None:
    verdict = call(take_too_much)
    assert verdict.status == "oom"
    assert "out of memory" in (verdict.error or "")
    assert call(take_a_little).value == KIB


def cells_of(method: str, *, deterministic: bool) -> list[Cell]:
    suite = load_suite("smoke")
    config = registry.load_method(method).config().canonical()
    tasks = [
        TaskCard(
            registry.load_task(plan.task).config().override(plan.config).canonical(),
            1,
            registry.source_hash("task", plan.task),
        )
        for plan in suite.tasks
    ]
    return plan_cells(
        suite, "smoke", [MethodCard(method, config, registry.source_hash("method", method))],
        tasks, select=Selection(), dtype="float32", device_kind="cuda", harness_hash="h",
        deterministic=deterministic,
    )  # fmt: skip


def measured(cell: Cell) -> Verdict:
    return call(
        errands.measure, cell.identity() | {"timeout_s": cell.timeout_s, "threads": cell.threads}
    )


@pytest.mark.parametrize("method", registry.method_names())
def test_a_deterministic_cell_scores_the_same_bits_or_names_what_stands_in_the_way(
    method: str,
) -> None:
    cell = cells_of(method, deterministic=True)[0]
    first, second = measured(cell), measured(cell)
    if first.status == "ok":
        assert second.value == first.value
    else:
        assert "does not have a deterministic implementation" in (first.error or "")


@pytest.mark.parametrize("kind", ["prefill", "train_step", "decode"])
def test_a_cost_cell_measures_time_memory_and_work(kind: str) -> None:
    cell = next(c for c in cells_of("vanilla", deterministic=False) if c.kind == kind)
    verdict = measured(cell)
    assert verdict.status == "ok", verdict.error
    (row,) = verdict.value
    assert row["memory_source"] == "cuda_allocator"
    assert min(row["step_ms"], row["peak_bytes"], row["flops"], row["touched_bytes"]) > 0
    assert row["throttled"] in (True, False, None)


def test_the_gpu_can_be_asked_about_or_says_nothing() -> None:
    readings = noise.read_machine("cuda")
    assert readings.gpu_busy_percent is None or 0 <= readings.gpu_busy_percent <= 100
    noise.complaints(readings)
