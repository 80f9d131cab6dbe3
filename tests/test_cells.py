import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lcbench.methods
from lcbench import cells, cost, noise, registry, store
from lcbench.cells import Watcher, describe_method, run_cell
from lcbench.config import UsageError
from lcbench.contract import InvalidOutputError, UnsupportedError, check_output, config_of
from lcbench.environment import use_threads
from lcbench.isolation import Send, call
from lcbench.measure import Timing
from lcbench.method import Cost, Method, MethodConfig, MethodSpec, ModelShape, Paper
from lcbench.noise import Throttling
from lcbench.parts import Resolved
from lcbench.suite import (
    Cell,
    CostPlan,
    MethodCard,
    ModelPlan,
    Selection,
    Suite,
    TaskCard,
    TaskPlan,
    plan_cells,
)
from lcbench.task import Batch, Task
from lcbench.train import DivergedError, OutOfTimeError, Report

CPU = torch.device("cpu")
QUIET = Watcher(stage=lambda name: None, report=lambda report: None)
COST: dict[str, Any] = {"contexts": (64,), "d_model": 16, "num_heads": 2, "seconds": 1e-9}
RECALL: dict[str, Any] = {
    "task": "mqar",
    "config": {"num_pairs": "2", "vocab_size": "16"},
    "train_context": 32,
    "contexts": (32, 64),
    "batch": 4,
    "steps": 5,
    "learning_rates": (1e-2,),
    "ramp": 1,
    "test_tokens": 512,
}


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cost cells take every core there is, on which other tests may be waiting."""
    for module in (cells, cost):
        monkeypatch.setattr(module, "usable_cores", lambda: 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Growing(Method):
    """Keeps every token, by copying all of them at each call; its output is one product."""

    def __init__(self, shape: ModelShape, config: MethodConfig) -> None:
        super().__init__(shape, config)
        self.mix = nn.Linear(shape.d_model, shape.d_model, bias=False)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.mix(x), x.clone() if state is None else torch.cat((state, x), 1)


class Stateless(Growing):
    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        return self.mix(x), None


def toy_spec(build: type[Method], **claims: Any) -> MethodSpec:
    fields: dict[str, Any] = {
        "title": "Toy",
        "family": "test",
        "equation": "y = W x",
        "paper": Paper("None", 2026, "2601.00001"),
        "cost": Cost(1.0, 1.0, 1.0),
    }
    return MethodSpec(build=build, config=MethodConfig, **fields | claims)


TOYS = {
    "growing": toy_spec(Growing),
    "stateless": toy_spec(Stateless, streams=False),
    "two-sided": toy_spec(Stateless, causal=False, bidirectional=True),
}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.load_method
    monkeypatch.setattr(registry, "load_method", lambda name: TOYS.get(name) or real(name))


def plan(
    method: str = "vanilla",
    cost: dict[str, Any] | None = None,
    *,
    pattern: str | None = None,
    num_layers: int = 1,
    **task: Any,
) -> list[Cell]:
    asked = TaskPlan(**RECALL | task)
    spec = registry.load_task(asked.task)
    suite = Suite(
        title="For tests",
        version=1,
        device_kind="cpu",
        dtype="float32",
        model=ModelPlan(d_model=16, num_layers=num_layers, num_heads=2),
        tasks=(asked,),
        cost=CostPlan(**COST | (cost or {})),
    )
    config = registry.load_method(method).config().canonical()
    if pattern:
        config = json.dumps({"pattern": pattern})
    return plan_cells(
        suite, "for-tests", [MethodCard(method, config, "hash")],
        [TaskCard(spec.config().override(asked.config).canonical(), 1, "hash")],
        select=Selection(), dtype="float32", device_kind="cpu", harness_hash="h",
    )  # fmt: skip


def measured(cell: Cell) -> dict[str, Any]:
    (row,) = run_cell(cell, QUIET)
    return row


def cost_cell(kind: str, method: str = "vanilla", **cost: Any) -> Cell:
    return next(cell for cell in plan(method, cost) if cell.kind == kind)


def test_a_quality_cell_gives_one_row_a_context() -> None:
    (cell, *_) = plan()
    rows = run_cell(cell, QUIET)
    assert [row["context"] for row in rows] == [32, 64]
    for row in rows:
        assert row["status"] == "ok"
        assert row["metric"] == "accuracy"
        assert row["floor"] == 0.5
        assert row["ceiling"] == 1.0
        assert 0 <= row["score"] <= 1
        assert row["loss_nats"] > 0
        assert row["learning_rate"] == 1e-2
        assert row["train_steps"] == 5
        assert row["train_tokens"] == 5 * 4 * 32
        assert row["train_s"] > 0
        assert row["curve_steps"] == [1, 2, 3, 4, 5]
        assert len(row["curve_loss_nats"]) == len(row["curve_s"]) == 5
        assert 0 < row["curve_s"][0] <= row["curve_s"][-1] <= row["train_s"]
        assert row["batch"] == 4
        assert row["num_examples"] == 512 // row["context"]
        assert len(row["correct_bits"]) == 2 * row["num_examples"] // 8
        assert sum(row["count_by_distance"]) == 2 * row["num_examples"]
        assert row["num_params"] > 0


TRANSLATE: dict[str, Any] = {
    "task": "translation", "config": {}, "train_context": 256, "contexts": (256, 512), "steps": 1
}  # fmt: skip


def test_what_the_model_writes_by_itself_stands_beside_what_it_is_asked() -> None:
    (cell, *_) = plan(**TRANSLATE)
    for row in run_cell(cell, QUIET):
        assert set(row) <= set(store.SCHEMA.names)
        assert row["num_generated"] >= row["num_examples"]
        assert 0 <= row["generated_exact_match"] < 0.1
        assert 0 <= row["generated_chrf"] < 40
        assert row["warning"] is None


def test_a_method_that_cannot_stream_writes_nothing() -> None:
    (cell, *_) = plan("stateless", **TRANSLATE)
    for row in run_cell(cell, QUIET):
        assert row["status"] == "ok"
        assert "num_generated" not in row


def test_scores_stand_where_no_time_is_left_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise OutOfTimeError

    monkeypatch.setattr(cells, "generate", late)
    (cell, *_) = plan(**TRANSLATE)
    for row in run_cell(cell, QUIET):
        assert row["status"] == "ok"
        assert row["score"] >= 0
        assert row["warning"] == "no time was left for the model to write by itself"


def test_a_row_without_chrf_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.chrf", None)
    (cell, *_) = plan(**TRANSLATE)
    for row in run_cell(cell, QUIET):
        assert row["generated_chrf"] is None
        assert row["generated_exact_match"] is not None
        assert "pip install sacrebleu" in row["warning"]


def test_what_a_cell_gives_is_what_the_schema_holds() -> None:
    for cell in plan():
        for row in run_cell(cell, QUIET):
            assert set(row) <= set(store.SCHEMA.names)


def test_a_quality_cell_measured_twice_is_the_same_to_the_last_bit() -> None:
    (cell, *_) = plan("sliding-window")
    first = run_cell(cell, QUIET)
    torch.rand(3)
    again = run_cell(cell, QUIET)
    # Time alone is no part of the result.
    clocks = {"train_s": 0.0, "curve_s": [0.0]}
    assert [row | clocks for row in again] == [row | clocks for row in first]


def test_a_quality_cell_runs_with_the_threads_it_was_planned_with() -> None:
    (cell, *_) = plan()
    assert cell.threads == 1
    torch.set_num_threads(2)
    run_cell(cell, QUIET)
    assert torch.get_num_threads() == 1


def test_torch_s_threads_are_set_only_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    use_threads(torch.get_num_threads())
    assert not asked
    use_threads(torch.get_num_threads() + 1)
    assert asked == [torch.get_num_threads() + 1]


def test_a_cell_tells_its_stages_and_its_training() -> None:
    stages: list[str] = []
    reports: list[Report] = []
    quality, prefill, *_ = plan()
    run_cell(quality, Watcher(stages.append, reports.append))
    assert stages == ["load", "build", "train", "evaluate"]
    assert reports[-1].step == reports[-1].steps == 5
    stages.clear()
    run_cell(prefill, Watcher(stages.append, reports.append))
    assert stages == ["load", "build", "measure", "weigh"]
    assert {*stages} <= {*store.STAGES}


class Recorder:
    """Stands between a cell and its task and writes down what was drawn, by split."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[tuple[str, Batch]] = []
        real = registry.load_task

        def load(name: str) -> Any:
            spec = real(name)
            return dataclasses.replace(spec, build=lambda *about: self.watch(spec.build(*about)))

        monkeypatch.setattr(registry, "load_task", load)

    def watch(self, task: Task) -> Task:
        sample = task.sample

        def noting(rng: np.random.Generator, batch: int, context: int) -> Batch:
            found = sample(rng, batch, context)
            self.drawn.append((task.split, found))
            return found

        task.sample = noting
        return task

    def rows(self, *splits: str) -> list[bytes]:
        return [row.tobytes() for split, b in self.drawn if split in splits for row in b.inputs]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def test_every_method_sees_the_same_examples(recorder: Recorder) -> None:
    seen: list[list[bytes]] = []
    for method in ("vanilla", "stateless"):
        (cell, *_) = plan(method, learning_rates=(1e-2, 1e-3))
        run_cell(cell, QUIET)
        seen.append(recorder.rows("train", "validation", "test"))
        recorder.drawn.clear()
    assert seen[0] == seen[1]


def test_every_seed_sees_examples_of_its_own(recorder: Recorder) -> None:
    (cell, *_) = plan()
    seen: list[set[bytes]] = []
    for seed in (0, 1):
        run_cell(dataclasses.replace(cell, seed=seed), QUIET)
        seen.append(set(recorder.rows("train", "test")))
        recorder.drawn.clear()
    assert not seen[0] & seen[1]


def test_what_is_scored_was_never_trained_on_and_test_is_read_once(recorder: Recorder) -> None:
    (cell, *_) = plan(learning_rates=(1e-2, 1e-3))
    run_cell(cell, QUIET)
    trained, validated, tested = (
        set(recorder.rows(split)) for split in ("train", "validation", "test")
    )
    assert not trained & validated
    assert not (trained | validated) & tested
    order = [split for split, _ in recorder.drawn]
    assert order.index("test") > max(at for at, split in enumerate(order) if split != "test")
    assert len(recorder.rows("test")) == len(tested) == 512 // 32 + 512 // 64


def test_nothing_is_validated_where_nothing_is_chosen(recorder: Recorder) -> None:
    (cell, *_) = plan()
    run_cell(cell, QUIET)
    assert "validation" not in {split for split, _ in recorder.drawn}


def test_the_learning_rate_that_does_best_on_validation_is_scored() -> None:
    rates = (1e-12, 3e-3)
    (cell, *_) = plan("stateless", steps=30, learning_rates=rates)
    for row in run_cell(cell, QUIET):
        assert row["learning_rate"] == 3e-3
        losses = dict(zip(row["sweep_learning_rates"], row["sweep_loss_nats"], strict=True))
        assert list(losses) == list(rates)
        assert losses[3e-3] == min(losses.values())
    (cell, *_) = plan("stateless", steps=30, learning_rates=rates[::-1])
    assert {row["learning_rate"] for row in run_cell(cell, QUIET)} == {3e-3}


def test_the_learning_curve_is_of_the_rate_that_is_scored() -> None:
    losses: list[list[float]] = []
    for rates in ((3e-3,), (3e-3, 1e-12), (1e-12, 3e-3)):
        (cell, *_) = plan("stateless", steps=30, learning_rates=rates)
        rows = run_cell(cell, QUIET)
        assert rows[0]["curve_loss_nats"] == rows[1]["curve_loss_nats"]
        losses.append(rows[0]["curve_loss_nats"])
    assert losses[0] == losses[1] == losses[2]


def test_a_learning_rate_that_diverges_leaves_the_others() -> None:
    (cell, *_) = plan(learning_rates=(1e30, 1e-2))
    for row in run_cell(cell, QUIET):
        assert row["learning_rate"] == 1e-2
        assert row["sweep_learning_rates"] == [1e30, 1e-2]
        diverged, chosen = row["sweep_loss_nats"]
        assert (diverged, chosen > 0) == (None, True)
    (cell, *_) = plan(learning_rates=(1e30, 1e29))
    with pytest.raises(DivergedError):
        run_cell(cell, QUIET)


@pytest.mark.parametrize("kind", ["prefill", "train_step", "decode"])
@pytest.mark.parametrize("method", ["vanilla", "sliding-window", "growing"])
def test_a_cost_cell_gives_one_row_of_time_and_memory(kind: str, method: str) -> None:
    row = measured(cost_cell(kind, method))
    assert row["status"] == "ok"
    assert row["context"] == 64
    assert row["batch"] == 1
    assert row["step_ms"] > 0
    assert row["step_ms_iqr"] >= 0
    assert 4 <= len(row["timings_ns"]) <= 200
    assert row["tokens_per_s"] > 0
    assert row["vanilla_step_ms"] > 0
    assert row["peak_bytes"] > 0
    assert row["memory_source"] == "cpu_profiler"
    assert row["flops"] >= 2 * 16 * 16
    assert row["touched_bytes"] >= 4 * 16 * 16
    assert row["num_params"] >= 16 * 16
    assert (row["state_bytes"] is not None) == (kind == "decode")
    if method == "vanilla":
        assert row["vs_vanilla"] == 1.0
        assert row["vanilla_step_ms"] == row["step_ms"]
    else:
        assert row["vs_vanilla"] == pytest.approx(row["vanilla_step_ms"] / row["step_ms"])


@pytest.mark.parametrize(("kind", "tokens"), [("prefill", 64), ("train_step", 64), ("decode", 1)])
def test_speed_is_tokens_over_the_median_and_vanillas_time_over_ones_own(
    monkeypatch: pytest.MonkeyPatch, kind: str, tokens: int
) -> None:
    own, vanillas = Timing.of([2_000_000] * 5), Timing.of([8_000_000] * 5)
    monkeypatch.setattr(cost, "time_alternating", lambda *_, **__: (own, vanillas))
    row = measured(cost_cell(kind, "growing", batch=3))
    assert row["tokens_per_s"] == pytest.approx(3 * tokens / 0.002)
    assert row["step_ms"] == 2.0
    assert row["vs_vanilla"] == 4.0
    assert row["vanilla_step_ms"] == 8.0
    assert not row["warning"] or row["warning"] == cost.THROTTLED


def test_times_that_scatter_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = Timing.of([1_000_000, 2_000_000, 4_000_000, 8_000_000])
    monkeypatch.setattr(cost, "time_alternating", lambda *_, **__: (noisy, None))
    assert measured(cost_cell("prefill"))["warning"].startswith("noisy: the IQR is ")


def test_the_load_that_times_were_taken_under_is_kept_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noisy = Timing.of([1_000_000, 2_000_000, 4_000_000, 8_000_000])
    monkeypatch.setattr(cost, "time_alternating", lambda *_, **__: (noisy, None))
    monkeypatch.setattr(noise, "load_average", lambda: 7.25)
    row = measured(cost_cell("prefill"))
    assert row["load_average"] == 7.25
    assert "at a load average of 7.2 on 1 cores" in row["warning"]


@pytest.mark.parametrize(("counts", "throttled"), [((3, 3), False), ((3, 4), True), (None, None)])
def test_throttling_while_it_was_timed_is_kept_and_told(
    monkeypatch: pytest.MonkeyPatch, counts: tuple[int, int] | None, throttled: bool | None
) -> None:
    readings = iter(counts or (None, None))
    monkeypatch.setattr(noise, "read_throttling", lambda: Throttling(next(readings), None))
    even = Timing.of([1_000_000] * 4)
    monkeypatch.setattr(cost, "time_alternating", lambda *_, **__: (even, None))
    row = measured(cost_cell("prefill"))
    assert row["throttled"] is throttled
    assert row["warning"] == (cost.THROTTLED if throttled else None)


def test_memory_and_state_of_a_toy_are_what_its_tensors_weigh() -> None:
    tokens = 2 * 64 * 16 * 4
    prefill = measured(cost_cell("prefill", "growing", batch=2))
    assert prefill["peak_bytes"] == 2 * tokens  # the output, and the state it keeps
    decode = measured(cost_cell("decode", "growing", batch=2))
    assert decode["state_bytes"] == tokens
    assert prefill["num_params"] == decode["num_params"] == 16 * 16


def test_the_work_of_a_toy_is_its_one_product() -> None:
    product = 2 * 2 * 64 * 16 * 16
    prefill, step = (measured(cost_cell(k, "growing", batch=2)) for k in ("prefill", "train_step"))
    assert prefill["flops"] == product
    assert step["flops"] == 3 * product
    assert prefill["touched_bytes"] == 4 * (16 * 16 + 2 * 64 * 16)


def test_a_method_that_cannot_be_counted_is_still_timed_and_weighed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(workload: object) -> None:
        raise NotImplementedError("no such formula")

    monkeypatch.setattr(cost, "count_work", refuse)
    row = measured(cost_cell("prefill", "growing"))
    assert (row["status"], row["flops"], row["touched_bytes"]) == ("ok", None, None)
    assert row["step_ms"] > 0
    assert row["peak_bytes"] > 0


def hybrid_cell(kind: str, pattern: str, num_layers: int) -> Cell:
    cells = plan("hybrid", pattern=pattern, num_layers=num_layers)
    return next(cell for cell in cells if cell.kind == kind)


def test_a_method_made_of_parts_costs_the_mean_of_its_layers() -> None:
    decode = measured(hybrid_cell("decode", "growing*3+vanilla", 4))
    token = 16 * 4
    assert decode["state_bytes"] == round((3 * 64 * token + 2 * 64 * token + 8) / 4)
    assert decode["num_params"] == (3 * 16 * 16 + 4 * 16 * 16) / 4
    assert decode["warning"] is None or "layers hold" not in decode["warning"]
    alone = measured(cost_cell("train_step", "growing"))
    of_two = measured(hybrid_cell("train_step", "growing+growing", 2))
    assert of_two["peak_bytes"] <= alone["peak_bytes"]
    assert of_two["vs_vanilla"] == pytest.approx(of_two["vanilla_step_ms"] / of_two["step_ms"])


def test_the_times_of_a_method_made_of_parts_are_a_layers_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, vanillas = Timing.of([2_000_000] * 5), Timing.of([8_000_000] * 5)
    monkeypatch.setattr(cost, "time_alternating", lambda *_, **__: (own, vanillas))
    row = measured(hybrid_cell("prefill", "growing+vanilla", 2))
    assert row["step_ms"] == 1.0
    assert row["timings_ns"] == [1_000_000] * 5
    assert row["vanilla_step_ms"] == 4.0
    assert row["vs_vanilla"] == 4.0
    assert row["tokens_per_s"] == pytest.approx(64 / 0.001)


def test_a_model_too_shallow_for_all_parts_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Timing.of([2_000_000] * 5)
    monkeypatch.setattr(cost, "time_alternating", lambda *_, **__: (quiet, quiet))
    told = "2 layers hold the last of 4 parts: growing+vanilla"
    for cell in plan("hybrid", pattern="growing*3+vanilla", num_layers=2):
        assert {row["warning"] for row in run_cell(cell, QUIET)} == {told}


def test_a_part_that_cannot_decode_leaves_the_whole_unable_to() -> None:
    with pytest.raises(UnsupportedError, match="keeps no state"):
        run_cell(hybrid_cell("decode", "vanilla+stateless", 2), QUIET)


def test_a_training_step_weighs_the_gradients_of_the_weights() -> None:
    step, prefill = (
        measured(cost_cell(kind, "growing", contexts=(8,))) for kind in ("train_step", "prefill")
    )
    assert step["peak_bytes"] >= prefill["peak_bytes"] + 16 * 16 * 4


@pytest.mark.parametrize("kind", ["prefill", "train_step"])
def test_memory_is_the_same_every_time(kind: str) -> None:
    peaks = {measured(cost_cell(kind, "recurrence"))["peak_bytes"] for _ in range(2)}
    assert len(peaks) == 1


def test_a_decode_steps_memory_does_not_depend_on_how_often_it_was_timed() -> None:
    once, often = (measured(cost_cell("decode", "growing", seconds=s)) for s in (1e-9, 0.05))
    assert len(often["timings_ns"]) > len(once["timings_ns"])
    assert often["peak_bytes"] == once["peak_bytes"]


def test_a_method_without_a_state_is_measured_but_cannot_decode() -> None:
    assert measured(cost_cell("prefill", "stateless"))["status"] == "ok"
    with pytest.raises(UnsupportedError, match="keeps no state"):
        run_cell(cost_cell("decode", "stateless"), QUIET)


def test_a_method_without_a_state_is_scored_by_reading_whole_examples() -> None:
    (cell, *_) = plan("stateless")
    assert [row["status"] for row in run_cell(cell, QUIET)] == ["ok", "ok"]


def test_a_method_that_sees_both_sides_alone_is_unsupported_everywhere() -> None:
    for cell in plan("two-sided"):
        with pytest.raises(UnsupportedError, match="causal"):
            run_cell(cell, QUIET)


def refuse_support(send: Send) -> None:
    raise UnsupportedError("the method keeps no state")


def give_wrong_output(send: Send) -> None:
    raise InvalidOutputError("x is [2, 9, 16], the output is [2, 8, 16]")


def diverge(send: Send) -> None:
    raise DivergedError("the training loss became nan by step 5")


@pytest.mark.parametrize(
    ("target", "status", "error"),
    [
        (diverge, "invalid", "the training loss became nan by step 5"),
        (refuse_support, "unsupported", "the method keeps no state"),
        (give_wrong_output, "invalid", "x is [2, 9, 16], the output is [2, 8, 16]"),
    ],
)
def test_what_a_cell_raises_becomes_a_status_of_its_own(
    target: Callable[[Send], None], status: str, error: str
) -> None:
    verdict = call(target)
    assert (verdict.status, verdict.error) == (status, error)


class Gives(Method):
    """Gives whatever it was told to."""

    def __init__(self, result: Callable[[Tensor], object]) -> None:
        super().__init__(ModelShape(d_model=16, num_heads=2), MethodConfig())
        self.result = result

    def forward(self, x: Tensor, state: object = None) -> Any:
        return self.result(x)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda x: x, r"must return \(output, state\), got Tensor"),
        (lambda x: None, "got NoneType"),
        (lambda x: (x, None, None), r"must return \(output, state\), got tuple"),
        (lambda x: [x, None], "got list"),
        (lambda x: (x.numpy(), None), "must be a plain tensor, got ndarray"),
        (lambda x: (None, None), "must be a plain tensor, got NoneType"),
        (lambda x: (x[:, :-1], None), r"x is \[2, 9, 16\], the output is \[2, 8, 16\]"),
        (lambda x: (x[..., None], None), r"the output is \[2, 9, 16, 1\]"),
        (lambda x: (x.double(), None), "x is torch.float32, the output is torch.float64"),
        (lambda x: (x * math.nan, None), "NaN or infinity"),
        (lambda x: (x / 0, None), "NaN or infinity"),
    ],
)
def test_an_output_against_the_contract_is_told(
    result: Callable[[Tensor], object], words: str
) -> None:
    with pytest.raises(InvalidOutputError, match=words):
        check_output(Gives(result), 16, CPU)


def test_one_bad_number_among_many_is_found() -> None:
    def spoil(x: Tensor) -> tuple[Tensor, None]:
        x = x.clone()
        x[1, 8, 15] = math.inf
        return x, None

    with pytest.raises(InvalidOutputError):
        check_output(Gives(spoil), 16, CPU)


def test_a_good_method_passes_in_its_own_dtype() -> None:
    check_output(Gives(lambda x: (x, None)), 16, CPU)
    shape = ModelShape(d_model=16, num_heads=2)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        check_output(Growing(shape, MethodConfig()).to(dtype), 16, CPU)


def test_a_bad_output_ends_quality_and_cost_cells_before_they_measure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(shape: ModelShape, config: MethodConfig) -> Method:
        return Gives(lambda x: (x[:, 1:], None))

    monkeypatch.setitem(TOYS, "short", toy_spec(build))
    stages: list[str] = []
    for cell in plan("short")[:3]:
        with pytest.raises(InvalidOutputError, match="the output is"):
            run_cell(cell, Watcher(stages.append, lambda report: None))
    assert set(stages) == {"load", "build"}


def test_a_method_is_described_with_its_overrides_in_full() -> None:
    card = describe_method("sliding-window", "window=32")
    assert card == MethodCard(
        "sliding-window", '{"window":32}', registry.source_hash("method", "sliding-window")
    )
    assert json.loads(describe_method("sliding-window", "").config) == {"window": 64}


def test_a_described_config_builds_the_config_it_came_from() -> None:
    for name in registry.method_names():
        spec = registry.load_method(name)
        assert config_of(spec, describe_method(name, "").config) == spec.config()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("windo=3", "method 'sliding-window': no config field 'windo'; did you mean 'window'"),
        ("window=wide", "method 'sliding-window': config field 'window' takes int, got 'wide'"),
        ("window=0", "method 'sliding-window': window must be at least 1, got 0"),
        ("window", "method 'sliding-window': 'window' is not a config override"),
    ],
)
def test_a_bad_override_names_the_method_and_the_field(overrides: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        describe_method("sliding-window", overrides)


def test_an_unknown_method_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'vanilla'"):
        describe_method("vanila", "")


@pytest.mark.parametrize(
    ("stem", "text", "words"),
    [
        ("cells_syntax", "def broken(:\n", "SyntaxError"),
        ("cells_raises", "raise KeyError('x')\n", "KeyError: 'x'"),
        ("cells_undeclared", "x = 1\n", "must end in"),
    ],
)
def test_a_broken_file_is_described_by_its_error(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, stem: str, text: str, words: str
) -> None:
    (own_folder / "methods" / f"{stem}.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))
    path = [*lcbench.methods.__path__, str(own_folder / "methods")]
    monkeypatch.setattr(lcbench.methods, "__path__", path)
    name = stem.replace("_", "-")
    card = describe_method(name, "window=3")
    assert card.name == name
    assert card.config == "{}"
    assert card.source_hash == registry.source_hash("method", name)
    assert card.error is not None
    assert words in card.error
    assert "\n" not in card.error


def test_a_config_that_cannot_be_made_is_described_by_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Refusing(MethodConfig):
        def __post_init__(self) -> None:
            raise ValueError("the defaults do not fit\nat all")

    spec = dataclasses.replace(registry.load_method("vanilla"), config=Refusing)
    monkeypatch.setattr(registry, "load_method", lambda name: spec)
    assert describe_method("vanilla", "").error == "ValueError: the defaults do not fit"


def test_the_anchors_failure_is_not_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    real = cost.Layers

    def layers(method: Resolved, *arguments: Any) -> object:
        if method.spec is registry.load_method("vanilla"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(method, *arguments)

    monkeypatch.setattr(cost, "Layers", layers)
    row = measured(cost_cell("prefill", "growing"))
    assert row["status"] == "ok"
    assert row["tokens_per_s"] > 0
    assert row["vs_vanilla"] is None
    assert "vanilla failed here" in row["warning"]


class Unordered(Growing):
    """Uses an operation that torch knows no deterministic algorithm for."""

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        out = self.mix(x)
        index = torch.arange(out.numel(), device=x.device)
        with torch.no_grad():
            torch.empty_like(out).put_(index, out.detach().flatten())
        return out, None


@pytest.fixture
def any_algorithm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a deterministic cell sets in its own process is unset in this one."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("any_algorithm")
def test_a_deterministic_cell_names_the_operation_that_stands_in_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TOYS, "unordered", toy_spec(Unordered, streams=False))
    (cell, *_) = plan("unordered")
    assert run_cell(cell, QUIET)[0]["status"] == "ok"
    with pytest.raises(RuntimeError, match=r"^put_ does not have a deterministic implementation"):
        run_cell(dataclasses.replace(cell, deterministic=True), QUIET)


@pytest.mark.usefixtures("any_algorithm")
@pytest.mark.parametrize("method", ["vanilla", "sliding-window", "recurrence", "sparse-global"])
def test_every_method_can_be_measured_deterministically(method: str) -> None:
    for cell in plan(method):
        rows = run_cell(dataclasses.replace(cell, deterministic=True), QUIET)
        assert {row["status"] for row in rows} == {"ok"}
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_deterministic_cells_are_cells_of_their_own() -> None:
    cell = cost_cell("prefill")
    other = dataclasses.replace(cell, deterministic=True)
    assert other.cell_id != cell.cell_id
    assert other.identity()["deterministic"] is True


def test_an_edited_part_makes_another_cell_and_is_refused(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))
    path = [*lcbench.methods.__path__, str(own_folder / "methods")]
    monkeypatch.setattr(lcbench.methods, "__path__", path)
    source = own_folder / "methods" / "cells_part.py"
    text = Path(registry.source("method", "sliding-window").path).read_text(encoding="utf-8")
    source.write_text(text, encoding="utf-8")
    card = describe_method("hybrid", "pattern=cells-part*3+vanilla")
    assert card.error is None
    assert card.source_hash not in (registry.source_hash("method", "hybrid"), None)
    same = describe_method("hybrid", "pattern=vanilla+cells-part")
    assert same.source_hash == card.source_hash
    cell = dataclasses.replace(
        hybrid_cell("prefill", "cells-part*3+vanilla", 4), method_hash=card.source_hash,
        config=card.config,
    )  # fmt: skip
    cells.check_sources(cell)
    source.write_text(text + "# edited\n", encoding="utf-8")
    assert describe_method("hybrid", "pattern=cells-part*3+vanilla").source_hash != card.source_hash
    with pytest.raises(RuntimeError, match="'hybrid' was edited since the run was planned"):
        cells.check_sources(cell)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("sliding-windw+vanilla", "method 'hybrid': no method 'sliding-windw'; did you mean"),
        ("hybrid+vanilla", "'hybrid' is made of parts itself, so it cannot be one"),
        ("sliding-window:windo=3+vanilla", "part 'sliding-window:windo=3': no config field"),
        ("vanilla*+vanilla", "pattern .* cannot be read at 'vanilla\\*'"),
    ],
)
def test_a_pattern_that_cannot_be_says_why(pattern: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        describe_method("hybrid", f"pattern={pattern}")


def test_a_file_edited_since_the_plan_is_refused() -> None:
    cell = dataclasses.replace(cost_cell("prefill", "vanilla"), method_hash="of another text")
    with pytest.raises(RuntimeError, match="edited since the run was planned"):
        cells.check_sources(cell)


class Hungry(Stateless):
    """Has room for 48 tokens."""

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        if x.size(1) > 48:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(x, state)


def test_a_context_too_long_for_memory_leaves_the_shorter_ones_their_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TOYS, "hungry", toy_spec(Hungry, streams=False))
    (cell, *_) = plan("hungry", train_context=32, contexts=(32, 64, 128))
    scored, failed, untried = run_cell(cell, QUIET)
    assert (scored["status"], scored["context"]) == ("ok", 32)
    assert scored["score"] >= 0
    assert (failed["status"], failed["context"], failed["asked_bytes"]) == ("oom", 64, 2**31)
    assert "Tried to allocate" in failed["error"]
    assert (untried["status"], untried["context"]) == ("oom", 128)
    assert untried["error"] == "not tried: out of memory at 64"


def test_a_context_that_takes_too_long_leaves_the_shorter_ones_their_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lcbench.cells.SCORING_ENDS", 0.0)
    (cell, *_) = plan("growing", train_context=32, contexts=(32, 64, 128))
    scored, late, untried = run_cell(dataclasses.replace(cell, timeout_s=90.0), QUIET)
    assert (scored["status"], scored["context"]) == ("ok", 32)
    assert (late["status"], late["stage"], late["context"]) == ("timeout", "evaluate", 64)
    assert late["error"] == "stopped at 0% of the cell's 90 s"
    assert (untried["status"], untried["context"]) == ("timeout", 128)
    assert untried["error"] == "not tried: out of time at 64"


def test_a_method_with_no_room_to_train_fails_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOYS, "hungry", toy_spec(Hungry, streams=False))
    (cell, *_) = plan("hungry", train_context=64, contexts=(64,))
    with pytest.raises(torch.OutOfMemoryError):
        run_cell(cell, QUIET)
