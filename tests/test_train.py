import math
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lcbench import curve as curves
from lcbench import train as training
from lcbench.curve import MOST_POINTS, Curve, CurveRecorder
from lcbench.measure import Workload, measure_memory
from lcbench.method import Method, MethodConfig, ModelShape
from lcbench.model import Backbone
from lcbench.suite import ModelPlan, TaskPlan
from lcbench.task import IGNORE, Batch, Split, Task, TaskConfig, stream
from lcbench.train import (
    DivergedError,
    Evaluation,
    OutOfTimeError,
    Reading,
    Report,
    Training,
    context_at,
    evaluate,
    learning_rate_at,
)

VOCAB = 8
SCOPE: dict[str, Any] = {"suite": ["for-tests", 1], "task": ["echo", 1, "{}"], "seed": 0}
PLAN = ModelPlan(d_model=16, num_layers=1, num_heads=2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Echo(Task):
    """Asks every other position for the token that stands there, and keeps what it drew."""

    vocab_size = VOCAB

    def __init__(self, split: Split = "train") -> None:
        super().__init__(TaskConfig(), split)
        self.drawn: list[Batch] = []

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        inputs = rng.integers(VOCAB, size=(batch, context))
        targets = np.where(np.arange(context) % 2, inputs, IGNORE)
        distances = np.where(targets != IGNORE, np.arange(context), 0)
        self.drawn.append(Batch(inputs, targets, distances))
        return self.drawn[-1]


class Sum(Method):
    """The sum of all tokens so far, weighted."""

    def __init__(self, shape: ModelShape, config: MethodConfig) -> None:
        super().__init__(shape, config)
        self.weight = nn.Parameter(torch.full((shape.d_model,), 0.5))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.cumsum(1) if state is None else x.cumsum(1) + state[:, None]
        return self.weight * total, total[:, -1]


class Penalised(Sum):
    def penalty(self) -> Tensor:
        return 100 * self.weight.square().sum()


def build(method: type[Method] = Sum, seed: int = 0) -> Backbone:
    return Backbone(
        PLAN, VOCAB, lambda shape: method(shape, MethodConfig()), train_context=32, seed=seed
    )


def plan(**changes: Any) -> TaskPlan:
    fields: dict[str, Any] = {
        "task": "echo",
        "train_context": 16,
        "contexts": (16,),
        "batch": 4,
        "steps": 20,
        "learning_rates": (1e-2,),
    }
    return TaskPlan(**fields | changes)


def trained(
    model: Backbone,
    task: Task | None = None,
    *,
    learning_rate: float = 1e-2,
    dtype: torch.dtype = torch.float32,
    scope: dict[str, Any] = SCOPE,
    reports: list[Report] | None = None,
    **changes: Any,
) -> Training:
    told = reports if reports is not None else []
    return training.train(
        model, task or Echo(), plan(**changes), scope,
        learning_rate=learning_rate, dtype=dtype, report=told.append,
    )  # fmt: skip


def train(model: Backbone, task: Task | None = None, **options: Any) -> float:
    """The mean loss of the last tenth of the steps."""
    return trained(model, task, **options).loss_nats


def score(
    model: nn.Module,
    task: Task | None = None,
    metric: Any = "accuracy",
    *,
    context: int = 16,
    num_examples: int = 10,
    chunked: bool = True,
    dtype: torch.dtype = torch.float32,
    jitter: int = 0,
    deadline: float = math.inf,
) -> Evaluation:
    reading = Reading(context, num_examples, dtype, chunked, jitter, deadline)
    return evaluate(model, task or Echo("test"), metric, SCOPE, reading)


@pytest.mark.parametrize(("ramp", "steps"), [(1, 10), (2, 40), (3, 120), (4, 1000), (3, 300)])
def test_the_ramp_climbs_in_equal_stages_to_the_full_context_by_half(ramp: int, steps: int) -> None:
    climbing = plan(train_context=64, ramp=ramp, steps=steps)
    stages = [
        (context, len(list(run)))
        for context, run in groupby(context_at(climbing, step) for step in range(steps))
    ]
    stage = steps // 2 // ramp
    lengths = {length for _, length in stages[:-1]}
    assert [context for context, _ in stages] == [64 // 2**n for n in range(ramp, -1, -1)]
    assert stages[-1][1] == steps // 2
    assert lengths <= {stage, stage + 1}


def test_without_a_ramp_the_context_never_changes() -> None:
    assert {context_at(plan(), step) for step in range(20)} == {16}


def test_every_step_reads_as_many_tokens_whatever_the_ramp() -> None:
    task = Echo()
    train(build(), task, ramp=2)
    shapes = [batch.inputs.shape for batch in task.drawn]
    assert shapes == [(16, 4)] * 5 + [(8, 8)] * 5 + [(4, 16)] * 10


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 100, 1000])
def test_the_learning_rate_warms_up_over_a_tenth_then_falls_to_nothing(steps: int) -> None:
    rates = [learning_rate_at(2.0, step, steps) for step in range(steps)]
    warm_up = max(1, steps // 10)
    assert max(rates) == rates[warm_up - 1] == 2.0
    assert rates[:warm_up] == pytest.approx([2.0 * (n + 1) / warm_up for n in range(warm_up)])
    assert rates[warm_up:] == sorted(rates[warm_up:], reverse=True)
    assert all(rate > 0 for rate in rates)
    if steps >= 100:
        assert rates[-1] < 0.01
        middle = warm_up + (steps - warm_up) // 2
        assert rates[middle] == pytest.approx(1.0, rel=0.02)


def test_the_loss_falls_on_a_task_that_needs_no_memory() -> None:
    model = build()
    before = score(model)
    loss = train(model, steps=120)
    after = score(model)
    assert before.loss_nats == pytest.approx(math.log(VOCAB), abs=0.2)
    assert loss < 0.2 * math.log(VOCAB)
    assert after.score > 0.95
    assert after.loss_nats == pytest.approx(loss, abs=0.1)


def test_the_loss_told_is_the_mean_of_the_last_tenth() -> None:
    model = build()
    nn.init.zeros_(model.head.weight)
    assert train(model, learning_rate=0.0) == pytest.approx(math.log(VOCAB))


def test_two_runs_of_one_seed_are_the_same_to_the_last_bit() -> None:
    first, again, other = build(), build(), build()
    assert train(first, ramp=1) == train(again, ramp=1)
    train(other, scope=SCOPE | {"seed": 1})
    weights = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])


def test_two_methods_are_trained_on_the_same_examples_in_the_same_order() -> None:
    one, two = Echo(), Echo()
    train(build(), one, steps=5)
    train(build(Penalised, seed=9), two, steps=5)
    for mine, other in zip(one.drawn, two.drawn, strict=True):
        assert np.array_equal(mine.inputs, other.inputs)
    assert len({batch.inputs.tobytes() for batch in one.drawn}) == 5


def test_each_step_is_drawn_from_the_train_stream_of_its_number() -> None:
    task, again = Echo(), Echo()
    train(build(), task, steps=3)
    for step, drawn in enumerate(task.drawn):
        expected = again.sample(stream(SCOPE, "train", step), 4, 16)
        assert np.array_equal(drawn.inputs, expected.inputs)


def test_examples_end_anywhere_within_their_jitter_and_never_beyond_an_eighth() -> None:
    task, whole = Echo(), Echo()
    options = {"steps": 60, "ramp": 2, "train_context": 32}
    train(build(), task, **options, jitter=3)
    train(build(), whole, **options)
    missing: dict[int, set[int]] = {}
    for batch, full in zip(task.drawn, whole.drawn, strict=True):
        context = full.inputs.shape[1]
        missing.setdefault(context, set()).add(context - batch.inputs.shape[1])
        assert len(batch.inputs) == len(full.inputs)
    assert missing == {8: {0, 1}, 16: {0, 1, 2}, 32: {0, 1, 2, 3}}


def test_scored_examples_end_anywhere_too_and_alike_for_every_method() -> None:
    tasks = [Echo("test"), Echo("test")]
    for seed, task in enumerate(tasks):
        score(build(seed=seed), task, context=4096, num_examples=40, jitter=64)
    lengths = [[batch.inputs.shape[1] for batch in task.drawn] for task in tasks]
    assert lengths[0] == lengths[1]
    assert len(set(lengths[0])) > 5
    assert 4096 - 64 <= min(lengths[0]) < max(lengths[0]) <= 4096


def test_a_penalty_is_minimised_and_not_part_of_the_loss_told() -> None:
    model = build(Penalised)
    loss = train(model, steps=60)
    plain = build()
    train(plain, steps=60)
    weights = [m.methods[0].weight.abs().mean() for m in (model, plain)]
    assert weights[0] < 0.5 * weights[1]
    assert loss < 2 * math.log(VOCAB)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_training_that_diverges_is_told(bad: float) -> None:
    model = build()
    with torch.no_grad():
        model.norm.weight[0] = bad
    with pytest.raises(DivergedError, match="the training loss became nan by step 20"):
        train(model)


def test_a_learning_rate_far_too_high_diverges_instead_of_giving_a_score() -> None:
    with pytest.raises(DivergedError):
        train(build(), learning_rate=1e30)


def test_the_last_step_is_always_reported() -> None:
    reports: list[Report] = []
    loss = train(build(), steps=3, reports=reports)
    assert reports[-1].step == reports[-1].steps == 3
    assert reports[-1].loss == pytest.approx(loss)
    assert reports[-1].tokens_per_s > 0


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (MOST_POINTS, list(range(1, MOST_POINTS + 1))),
        (2 * MOST_POINTS, list(range(2, 2 * MOST_POINTS + 1, 2))),
    ],
)
def test_a_curve_has_equal_spans_and_ends_with_the_last_step(steps: int, ends: list[int]) -> None:
    assert trained(build(), steps=steps).curve.steps == ends


@pytest.mark.parametrize("steps", [33, 50, 200, 1001])
def test_spans_of_a_curve_differ_by_a_step_at_most(steps: int) -> None:
    recorder = CurveRecorder(steps, torch.device("cpu"))
    for _ in range(steps):
        recorder.add(torch.tensor(1.0))
    told = recorder.curve()
    assert len(told.steps) == MOST_POINTS
    assert told.steps[-1] == steps
    lengths = np.diff([0, *told.steps])
    assert lengths.max() - lengths.min() <= 1


def test_a_curve_is_the_mean_loss_of_each_span(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    real = training._step

    def noting(*arguments: Any) -> Tensor:
        loss = real(*arguments)
        seen.append(loss.item())
        return loss

    monkeypatch.setattr(training, "_step", noting)
    told = trained(build(), steps=70)
    spans = np.split(np.array(seen), told.curve.steps[:-1])
    assert told.curve.loss_nats == pytest.approx([span.mean() for span in spans])
    assert told.curve.loss_nats[-1] < 0.5 * told.curve.loss_nats[0]
    assert told.loss_nats == pytest.approx(np.mean(seen[63:]))


def test_the_clock_of_a_curve_starts_with_training_and_never_goes_back() -> None:
    began = time.monotonic()
    seconds = trained(build(), steps=70).curve.seconds
    assert seconds[0] > 0
    assert seconds == sorted(seconds)
    assert seconds[-1] <= time.monotonic() - began


def test_a_curve_tells_the_seconds_at_the_end_of_each_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([100.0, 101.5, 104.0])
    monkeypatch.setattr(curves, "monotonic", lambda: next(clock))
    recorder = CurveRecorder(2, torch.device("cpu"))
    recorder.add(torch.tensor(3.0))
    recorder.add(torch.tensor(1.0))
    assert recorder.curve() == Curve([1, 2], [3.0, 1.0], [1.5, 4.0])


class Waits(TorchDispatchMode):
    """Notes operations whose result the host, to go on, must wait for a GPU to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        masks = [t for part in args if isinstance(part, list) for t in part if t is not None]
        by_mask = name.startswith("index") and any(t.dtype == torch.bool for t in masks)
        if by_mask or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_the_device_is_waited_for_when_the_loss_is_told_and_never_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "REPORT_EVERY_S", 1e9)
    reports: list[Report] = []
    with Waits() as waits:
        train(build(), steps=30, reports=reports)
    assert len(reports) == 1
    # The last step's loss, and the mean that is returned.
    assert waits.seen == ["_local_scalar_dense"] * 2
    with Waits() as waits:
        x = torch.zeros(3)
        x[x == 0].sum().item()
    assert waits.seen == ["index", "_local_scalar_dense"]


def test_throughput_counts_the_time_until_the_loss_was_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([10.0, 10.0, 14.0])  # the start, whether to report, after the loss is read
    monkeypatch.setattr(training, "monotonic", lambda: next(clock))
    reports: list[Report] = []
    train(build(), steps=1, reports=reports)
    assert reports[0].tokens_per_s == 4 * 16 / 4.0


def test_examples_are_drawn_beside_training_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[threading.Thread] = []

    class Noting(Echo):
        def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
            threads.append(threading.current_thread())
            return super().sample(rng, batch, context)

    class InLine:
        def __init__(self, workers: int) -> None: ...

        def __enter__(self) -> "InLine":
            return self

        def __exit__(self, *exception: object) -> None: ...

        def submit(self, draw: Any, step: int) -> Any:
            drawn: Future[Batch] = Future()
            drawn.set_result(draw(step))
            return drawn

    beside, in_line = build(), build()
    loss = train(beside, Noting(), ramp=1)
    assert threading.main_thread() not in threads
    assert len(threads) == 20
    threads.clear()
    monkeypatch.setattr(training, "ThreadPoolExecutor", InLine)
    assert train(in_line, Noting(), ramp=1) == loss
    assert set(threads) == {threading.main_thread()}
    for name, weight in beside.state_dict().items():
        assert torch.equal(weight, in_line.state_dict()[name])


def test_mixed_precision_keeps_the_weights_in_float32() -> None:
    model = build()
    assert train(model, dtype=torch.bfloat16, steps=60) < math.log(VOCAB)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert score(model, dtype=torch.bfloat16).score > 2 / VOCAB


def test_an_error_of_the_task_comes_through_training() -> None:
    class TooShort(Echo):
        def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
            raise ValueError("echo needs a context of at least 99")

    with pytest.raises(ValueError, match="at least 99"):
        train(build(), TooShort())


class Rigged(nn.Module):
    """Says the token it reads, surely, if it is below `knows`, and token 0 otherwise."""

    def __init__(self, knows: int = VOCAB, sureness: float = 1000.0) -> None:
        super().__init__()
        self.knows, self.sureness = knows, sureness
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor, state: int | None = None) -> tuple[Tensor, int]:
        said = torch.where(tokens < self.knows, tokens, 0)
        return self.sureness * F.one_hot(said, VOCAB).float(), (state or 0) + tokens.shape[1]

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def asked_tokens(task: Echo) -> np.ndarray:
    """Targets of all examples drawn, `[N, answers]`."""
    targets = np.concatenate([batch.targets for batch in task.drawn])
    return targets[targets != IGNORE].reshape(len(targets), -1)


@pytest.mark.parametrize(
    ("metric", "best"), [("accuracy", 1.0), ("exact_match", 1.0), ("bits_per_byte", 0.0)]
)
def test_a_perfect_model_scores_perfectly(metric: str, best: float) -> None:
    result = score(Rigged(), metric=metric)
    assert result.score == best
    assert result.score_se == 0.0
    assert result.loss_nats == 0.0
    assert result.num_examples == 10


def test_a_model_that_knows_nothing_pays_the_bits_of_the_alphabet() -> None:
    result = score(Rigged(sureness=0.0), metric="bits_per_byte")
    assert result.score == pytest.approx(math.log2(VOCAB))
    assert result.loss_nats == pytest.approx(math.log(VOCAB))
    assert result.correct_bits is None


def test_accuracy_is_the_share_of_answers_that_are_right() -> None:
    task = Echo("test")
    result = score(Rigged(knows=5), task)
    right = asked_tokens(task) < 5
    # Token 0 is also what it says when it does not know.
    assert result.score == right.mean()
    assert 0.3 < result.score < 0.9
    per_example = right.mean(axis=1)
    assert result.score_se == pytest.approx(per_example.std(ddof=1) / math.sqrt(10))


def test_exact_match_wants_every_answer_of_an_example() -> None:
    task = Echo("test")
    result = score(Rigged(knows=7), task, "exact_match", num_examples=50)
    right = (asked_tokens(task) < 7).all(axis=1)
    assert 0 < right.mean() < 1
    assert result.score == right.mean()
    assert result.score < score(Rigged(knows=7), num_examples=50).score


def test_right_and_wrong_are_kept_answer_by_answer_in_order() -> None:
    task = Echo("test")
    result = score(Rigged(knows=5), task)
    assert result.correct_bits is not None
    bits = np.unpackbits(np.frombuffer(result.correct_bits, np.uint8))
    right = (asked_tokens(task) < 5).ravel()
    assert bits[: right.size].tolist() == right.astype(int).tolist()
    assert not bits[right.size :].any()


class Spread(Echo):
    """Asks at position t for evidence `distances[t]` tokens back, the first half wrongly."""

    def __init__(self, distances: list[int]) -> None:
        super().__init__("test")
        self.distances = np.array(distances)

    def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
        tokens = np.ones((batch, context), np.int64)
        tokens[: batch // 2] = VOCAB - 1
        return Batch(tokens, tokens.copy(), np.tile(self.distances, (batch, 1)))


def test_scores_are_kept_by_power_of_two_of_the_distance() -> None:
    distances = [0, 1, 2, 3, 4, 7, 8, 31, 32, 1024]
    result = score(Rigged(knows=4), Spread(distances), context=10, num_examples=4)
    assert result.count_by_distance == [4, 8, 8, 4, 4, 4, 0, 0, 0, 0, 4]
    assert result.score_by_distance == [0.5] * 6 + [None] * 4 + [0.5]
    assert result.score == 0.5


def test_a_task_without_distances_has_no_buckets() -> None:
    class NoDistance(Echo):
        def sample(self, rng: np.random.Generator, batch: int, context: int) -> Batch:
            return super().sample(rng, batch, context)._replace(distances=None)

    result = score(Rigged(), NoDistance("test"))
    assert result.score_by_distance == []
    assert result.count_by_distance == []
    assert result.score == 1.0


def test_distance_buckets_hold_the_answers_of_their_own_distance() -> None:
    task = Echo("test")
    result = score(Rigged(knows=5), task, context=16)
    right = (asked_tokens(task) < 5).mean(axis=0)  # answers at 1, 3, 5, ... 15
    expected = [right[0], right[1], right[2:4].mean(), right[4:].mean()]
    assert result.score_by_distance == pytest.approx(expected)
    assert result.count_by_distance == [10, 10, 20, 40]


@pytest.mark.parametrize("limit", [1, 8, 15])
def test_reading_in_chunks_gives_what_one_call_gives(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(training, "EVALUATION_TOKENS", limit)
    model = build().double()
    tasks = Echo("test"), Echo("test")
    chunks, whole = (
        score(model, task, chunked=c) for task, c in zip(tasks, (True, False), strict=True)
    )
    assert chunks.correct_bits == whole.correct_bits
    assert chunks.score == whole.score
    assert chunks.loss_nats == pytest.approx(whole.loss_nats, rel=1e-12)
    assert chunks.score_by_distance == whole.score_by_distance
    for mine, other in zip(tasks[0].drawn, tasks[1].drawn, strict=True):
        assert np.array_equal(mine.inputs, other.inputs)


def test_no_call_is_longer_than_the_limit_when_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "EVALUATION_TOKENS", 5)
    lengths: list[tuple[int, ...]] = []

    class Noting(Rigged):
        def forward(self, tokens: Tensor, state: int | None = None) -> tuple[Tensor, int]:
            lengths.append((*tokens.shape, state or 0))
            return super().forward(tokens, state)

    assert score(Noting(), context=12, num_examples=2).score == 1.0
    assert lengths == [(1, 5, 0), (1, 5, 5), (1, 2, 10)] * 2
    lengths.clear()
    score(Noting(), context=12, num_examples=2, chunked=False)
    assert lengths == [(1, 12, 0)] * 2


def scoring_bytes(context: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Peak bytes of torch, and of numpy beside it, while two examples are scored."""
    monkeypatch.setattr(training, "EVALUATION_TOKENS", 512)
    model, task = build(), Echo("test")

    def call(_: object) -> Evaluation:
        result = score(model, task, "bits_per_byte", context=context, num_examples=2)
        task.drawn.clear()
        return result

    call(None)
    peak = measure_memory(Workload(lambda: None, call), torch.device("cpu")).peak_bytes
    assert peak is not None
    tracemalloc.start()
    call(None)
    beside = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, beside


def test_a_long_context_takes_no_more_memory_than_a_short_one_but_for_its_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short, long = (scoring_bytes(context, monkeypatch) for context in (1024, 16_384))
    assert long[0] == short[0], "activations, logits or answers of the whole context were held"
    # Echo holds two examples at once, three int64 arrays each, and three more to make the second.
    drawn = 9 * 8 * (16_384 - 1024)
    assert long[1] - short[1] < drawn


def test_scoring_stops_at_its_deadline() -> None:
    with pytest.raises(OutOfTimeError):
        score(build(), deadline=time.monotonic() - 1)


def test_exactly_the_examples_asked_for_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "EVALUATION_TOKENS", 64)
    task = Echo("test")
    result = score(Rigged(), task, num_examples=10)
    assert [len(batch.inputs) for batch in task.drawn] == [4, 4, 2]
    assert sum(result.count_by_distance) == 80


def test_test_examples_are_the_same_for_every_method_and_none_of_training() -> None:
    tasks = [Echo("test"), Echo("test"), Echo("validation"), Echo("train")]
    score(build(), tasks[0])
    score(Rigged(), tasks[1], chunked=False)
    score(Rigged(), tasks[2])
    train(build(), tasks[3], steps=5)
    rows = [{row.tobytes() for batch in t.drawn for row in batch.inputs} for t in tasks]
    assert rows[0] == rows[1]
    assert not rows[0] & rows[2]
    assert not (rows[0] | rows[2]) & rows[3]


def test_examples_of_two_contexts_are_drawn_apart() -> None:
    short, long = Echo("test"), Echo("test")
    score(Rigged(), short, context=16)
    score(Rigged(), long, context=32)
    assert not np.array_equal(short.drawn[0].inputs[0], long.drawn[0].inputs[0, :16])


def test_a_model_whose_outputs_are_not_finite_gets_no_score() -> None:
    with pytest.raises(DivergedError, match="outputs at context 16 are not finite"):
        score(Rigged(sureness=math.nan))


def test_scoring_changes_no_weight_and_keeps_no_gradient() -> None:
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.training
