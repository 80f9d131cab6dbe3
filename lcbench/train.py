"""The loop: a model and a task to a trained model, and a trained model to scores.

Recipe, the same for every method: AdamW, linear warm-up over a tenth of the steps, cosine to zero,
gradients clipped to norm 1. The context may climb in stages over the first half (`TaskPlan.ramp`;
Li et al. (2022), arXiv:2108.06084): recall circuits form at short contexts and carry over, which
turns minutes into seconds.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcbench.contract import InvalidOutputError
from lcbench.curve import Curve, CurveRecorder
from lcbench.method import State
from lcbench.model import Backbone
from lcbench.suite import TaskPlan, shortest_example
from lcbench.task import IGNORE, Batch, IntArray, Metric, Task, stream

REPORT_EVERY_S = 0.5
EVALUATION_TOKENS = 16_384
"""Tokens of one forward call while scoring; longer contexts are read in chunks of this many."""
OCTAVES = 48
"""Buckets `[2**b, 2**(b+1))` kept of distances and positions, the empty ones at the end cut off."""


class DivergedError(Exception):
    """A loss or an output stopped being a finite number."""

    status = "invalid"


class OutOfTimeError(Exception):
    """Scoring was not done by its deadline."""


class Report(NamedTuple):
    """How training stands."""

    step: int
    steps: int
    loss: float
    tokens_per_s: float


class Training(NamedTuple):
    """How training went."""

    loss_nats: float
    """The mean of the last tenth of the steps."""
    curve: Curve


class Evaluation(NamedTuple):
    """Scores of one model at one context."""

    score: float
    score_se: float
    loss_nats: float
    num_examples: int
    score_by_distance: list[float | None]
    """Accuracy where the evidence lies `[2**b, 2**(b+1))` tokens back."""
    count_by_distance: list[int]
    score_by_example: list[float]
    """In the order of the test stream: the same examples for every method with this seed."""
    score_by_position: list[float | None]
    """Where something is asked at `[2**b, 2**(b+1))` tokens from the start, position 0 with 1."""
    correct_bits: bytes | None
    """One bit an answer, in order, packed; None for a metric without right and wrong."""


def context_at(plan: TaskPlan, step: int) -> int:
    """Context of one training step: in the first half it doubles `ramp` times."""
    halvings = math.ceil(plan.ramp * (1 - 2 * step / plan.steps))
    return plan.train_context // 2 ** max(0, halvings)


def learning_rate_at(peak: float, step: int, steps: int) -> float:
    """Linear warm-up over the first tenth of the steps, then a cosine to zero."""
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def train(
    model: Backbone,
    task: Task[Any],
    plan: TaskPlan,
    scope: dict[str, Any],
    *,
    learning_rate: float,
    dtype: torch.dtype,
    report: Callable[[Report], None],
) -> Training:
    """Train a model in place.

    Args:
        model: On the device to train on.
        task: Of the train split.
        plan: Steps, batch and contexts.
        scope: Names the random stream, see `task.stream`.
        learning_rate: Its peak.
        dtype: float32, or bfloat16 for mixed precision.
        report: Called now and then; reading the loss waits for the device, so not at each step.

    Raises:
        DivergedError: A loss that is not finite.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        fused=device.type in ("cpu", "cuda"),
    )
    model.train()
    started = reported = monotonic()
    tokens = 0
    tail: list[Tensor] = []
    recorder = CurveRecorder(plan.steps, device)
    for step, batch in enumerate(_batches(task, plan, scope)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(learning_rate, step, plan.steps)
        loss = _step(model, optimizer, batch, device, dtype)
        recorder.add(loss)
        tokens += batch.inputs.size
        if step >= plan.steps * 9 // 10:
            tail.append(loss)
        if monotonic() - reported > REPORT_EVERY_S or step + 1 == plan.steps:
            value = loss.item()  # waits until the device is here: only then may the clock be read
            reported = monotonic()
            if not math.isfinite(value):
                raise DivergedError(f"the training loss became {value} by step {step + 1}")
            report(Report(step + 1, plan.steps, value, tokens / (reported - started)))
    return Training(torch.stack(tail).mean().item(), recorder.curve())


def _step(
    model: Backbone,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    inputs, at, wanted = _on_device(batch.inputs, batch.targets, device)
    optimizer.zero_grad()
    with mixed_precision(device, dtype):
        hidden, _ = model(inputs)
        loss = F.cross_entropy(answers(model, hidden, at), wanted)
        penalty = model.penalty()
    (loss if penalty is None else loss + penalty).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def mixed_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to bfloat16 where that is asked for; weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def answers(model: Backbone, hidden: Tensor, at: Tensor) -> Tensor:
    """Logits `[N, vocab]` in float32 at the N places of hidden `[B, T, D]`, counted along B T.

    Raises:
        InvalidOutputError: A subclass of tensors, which would take part in scoring the answers.
    """
    if type(hidden) is not Tensor:
        kind = type(hidden).__name__
        raise InvalidOutputError(f"a method's output must be a plain tensor, got {kind}")
    return model.head(hidden.flatten(0, 1).index_select(0, at)).float()


def _on_device(
    inputs: IntArray, targets: IntArray, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs `[B, T]`, where answers are asked among B T, and what they should be.

    They are picked out here because a device would have to be waited for to learn how many.
    """
    at = np.flatnonzero(targets != IGNORE)
    wanted = targets.reshape(-1)[at]
    return to_device(inputs, device), to_device(at, device), to_device(wanted, device)


def to_device(array: IntArray, device: torch.device) -> Tensor:
    """A numpy array as a tensor on the device, on its way there while the host goes on."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _batches(task: Task[Any], plan: TaskPlan, scope: dict[str, Any]) -> Iterator[Batch]:
    """Training batches, each drawn in a thread while the one before it is trained on."""

    def draw(step: int) -> Batch:
        context = context_at(plan, step)
        batch = plan.batch * plan.train_context // context
        rng = stream(scope, "train", step)
        return task.sample(rng, batch, length(rng, context, plan.jitter))

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(draw, 0)
        for step in range(plan.steps):
            batch = coming.result()
            if step + 1 < plan.steps:
                coming = pool.submit(draw, step + 1)
            yield batch


def length(rng: np.random.Generator, context: int, jitter: int) -> int:
    """Tokens of the examples of one batch, see `TaskPlan.jitter`."""
    # Without a jitter nothing is drawn, as in streams that are older than it.
    return int(rng.integers(shortest_example(context, jitter), context + 1)) if jitter else context


class Reading(NamedTuple):
    """How the examples of one context are read."""

    context: int
    """Tokens of an example."""
    num_examples: int
    dtype: torch.dtype
    """float32, or bfloat16 for mixed precision."""
    chunked: bool
    """Whether an example longer than `EVALUATION_TOKENS` is read in chunks, carrying the state: for
    methods that keep the segment law. What is held at once is then one example's tokens, the
    activations and logits of one chunk, and the state."""
    jitter: int = 0
    """Most tokens by which an example is shorter than its context, see `TaskPlan`."""
    deadline: float = math.inf
    """When to give up, by `time.monotonic`; looked at before each call of the model."""

    @property
    def chunk(self) -> int:
        """Most tokens of one call."""
        return EVALUATION_TOKENS if self.chunked else self.context


class _Answers(NamedTuple):
    """What scoring learns of one call, per answer, example by example."""

    loss_nats: np.ndarray
    correct: np.ndarray
    example: np.ndarray
    distance: np.ndarray
    position: np.ndarray


class _Octaves:
    """Sums and counts by power-of-two bucket of a positive integer."""

    def __init__(self) -> None:
        self.sums, self.counts = np.zeros(OCTAVES), np.zeros(OCTAVES, np.int64)

    def add(self, at: np.ndarray, value: np.ndarray) -> None:
        bucket = np.log2(at).astype(np.int64)
        self.sums += np.bincount(bucket, value, OCTAVES)
        self.counts += np.bincount(bucket, minlength=OCTAVES)

    def means(self) -> list[float | None]:
        pairs = zip(self.sums, self.number(), strict=False)
        return [float(total / count) if count else None for total, count in pairs]

    def number(self) -> list[int]:
        return [int(count) for count in np.trim_zeros(self.counts, "b")]


class _Tally:
    """Sums over answers as they come: a million of one example take no room, but for a bit each."""

    def __init__(self, metric: Metric, num_examples: int) -> None:
        self.metric: Metric = metric
        self.loss_nats = 0.0
        self.values, self.asked = np.zeros(num_examples), np.zeros(num_examples, np.int64)
        self.by_distance, self.by_position = _Octaves(), _Octaves()
        self.correct: list[np.ndarray] = []

    def add(self, answers: _Answers) -> None:
        in_bits = self.metric == "bits_per_byte"
        value = answers.loss_nats / math.log(2) if in_bits else answers.correct.astype(np.float64)
        number = len(self.values)
        self.loss_nats += float(answers.loss_nats.sum(dtype=np.float64))
        self.values += np.bincount(answers.example, value, number)
        self.asked += np.bincount(answers.example, minlength=number)
        known = answers.distance > 0
        self.by_distance.add(answers.distance[known], answers.correct[known])
        self.by_position.add(np.maximum(answers.position, 1), value)
        if not in_bits:
            self.correct.append(answers.correct)

    def evaluation(self) -> Evaluation:
        number = len(self.values)
        per_example = self.values / self.asked
        score = float(self.values.sum() / self.asked.sum())
        if self.metric == "exact_match":
            per_example = (per_example == 1.0).astype(np.float64)
            score = float(per_example.mean())
        spread = float(per_example.std(ddof=1)) if number > 1 else 0.0
        bits = np.packbits(np.concatenate(self.correct)).tobytes() if self.correct else None
        return Evaluation(
            score=score,
            score_se=spread / math.sqrt(number),
            loss_nats=self.loss_nats / int(self.asked.sum()),
            num_examples=number,
            score_by_distance=self.by_distance.means(),
            count_by_distance=self.by_distance.number(),
            score_by_example=per_example.tolist(),
            score_by_position=self.by_position.means(),
            correct_bits=bits,
        )


@torch.no_grad()
def evaluate(
    model: Backbone,
    task: Task[Any],
    metric: Metric,
    scope: dict[str, Any],
    reading: Reading,
) -> Evaluation:
    """Score a model at one context.

    Args:
        model: A trained model.
        task: Of the split to score on: validation for whatever is chosen, test once at the end.
        metric: How answers become a score.
        scope: Names the random stream, see `task.stream`.
        reading: Which examples, and how they are read.

    Raises:
        DivergedError: Logits that are not finite.
        OutOfTimeError: The deadline has passed.
    """
    model.eval()
    tally = _Tally(metric, reading.num_examples)
    first = 0
    for batch in examples(task, scope, reading):
        for part in _read(model, batch, reading):
            tally.add(part._replace(example=part.example + first))
        first += len(batch.inputs)
    if not math.isfinite(tally.loss_nats):
        context = f"{reading.context:,}"
        raise DivergedError(f"the model's outputs at context {context} are not finite")
    return tally.evaluation()


def examples(task: Task[Any], scope: dict[str, Any], reading: Reading) -> Iterator[Batch]:
    """What a model is scored on, in batches of one call: the same for every method, and each time.

    Args:
        task: Of the split to score on.
        scope: Names the random stream, see `task.stream`.
        reading: Which examples.
    """
    context, number = reading.context, reading.num_examples
    batch_size = max(1, min(number, EVALUATION_TOKENS // context))
    for step, first in enumerate(range(0, number, batch_size)):
        rng = stream(scope | {"context": context}, task.split, step)
        size = min(batch_size, number - first)
        yield task.sample(rng, size, length(rng, context, reading.jitter))


def _read(model: Backbone, batch: Batch, reading: Reading) -> Iterator[_Answers]:
    """Answers of a batch, call by call: of several calls the batch is one example."""
    device = next(model.parameters()).device
    state: State = None
    for start in range(0, batch.inputs.shape[1], reading.chunk):
        if monotonic() > reading.deadline:
            raise OutOfTimeError
        part = slice(start, start + reading.chunk)
        asked = batch.targets[:, part] != IGNORE
        inputs, at, wanted = _on_device(batch.inputs[:, part], batch.targets[:, part], device)
        with mixed_precision(device, reading.dtype):
            hidden, state = model(inputs, state)
            logits = answers(model, hidden, at)
        example, position = np.nonzero(asked)
        distances = batch.distances[:, part][asked] if batch.distances is not None else None
        yield _Answers(
            F.cross_entropy(logits, wanted, reduction="none").cpu().numpy(),
            (logits.argmax(-1) == wanted).cpu().numpy(),
            example,
            np.zeros_like(example) if distances is None else distances,
            position + start,
        )
