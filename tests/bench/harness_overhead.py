"""Training and scoring through lcbench beside the same loops written by hand.

    python tests/bench/harness_overhead.py [--rounds 20] [--threads 1]

Both sides train the same model on the same examples at the quick suite's sizes, in alternation
(A B B A) in one process; the ratio is that of each pair, the figure their median and quartiles, by
the clock and by processor time, which counts all threads and is disturbed less by a busy machine.
The loops by hand draw each batch when they need it, as most do; lcbench draws it in a thread while
the step before runs, so its ratio may fall below 1.

Seen on two idle cores, medians of 20 pairs: vanilla training 1.006, scoring 1.010; sliding-window
0.981 and 1.000; by processor time within 0.5 % of the same.
"""

import math
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F

from lcbench import registry
from lcbench.model import Backbone
from lcbench.suite import ModelPlan, TaskPlan
from lcbench.task import IGNORE, Task, stream
from lcbench.train import Reading, evaluate, train

MODEL = ModelPlan(d_model=64, num_layers=2, num_heads=2)
PLAN = TaskPlan(
    task="mqar", train_context=512, contexts=(512,), batch=8, steps=20, learning_rates=(1e-2,)
)
SCOPE: dict[str, Any] = {"suite": ["bench", 1], "task": ["mqar", 1, "{}"], "seed": 0}
EXAMPLES = 256


def train_by_hand(model: Backbone, task: Task) -> float:
    """The loop of `lcbench.train.train`, as one would write it for this task alone."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    model.train()
    losses = []
    warm_up = PLAN.steps // 10
    for step in range(PLAN.steps):
        rate = (step + 1) / warm_up
        if step >= warm_up:
            done = (step - warm_up) / (PLAN.steps - warm_up)
            rate = 0.5 * (1 + math.cos(math.pi * done))
        optimizer.param_groups[0]["lr"] = 1e-2 * rate
        batch = task.sample(stream(SCOPE, "train", step), PLAN.batch, PLAN.train_context)
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        asked = targets != IGNORE
        hidden, _ = model(inputs)
        loss = F.cross_entropy(model.head(hidden[asked]), targets[asked])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses[-PLAN.steps // 10 :]).mean().item()


@torch.no_grad()
def score_by_hand(model: Backbone, task: Task) -> float:
    """Accuracy on the examples that `lcbench.train.evaluate` would draw."""
    model.eval()
    right = count = 0
    size = 16_384 // PLAN.train_context
    scope = SCOPE | {"context": PLAN.train_context}
    for step in range(EXAMPLES // size):
        batch = task.sample(stream(scope, "test", step), size, PLAN.train_context)
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        asked = targets != IGNORE
        hidden, _ = model(inputs)
        logits = model.head(hidden[asked])
        F.cross_entropy(logits, targets[asked])
        right += (logits.argmax(-1) == targets[asked]).sum().item()
        count += asked.sum().item()
    return right / count


def train_through_lcbench(model: Backbone, task: Task) -> float:
    """The same through the harness."""
    return train(
        model, task, PLAN, SCOPE,
        learning_rate=1e-2, dtype=torch.float32, report=lambda report: None,
    ).loss_nats  # fmt: skip


def score_through_lcbench(model: Backbone, task: Task) -> float:
    """The same through the harness."""
    reading = Reading(PLAN.train_context, EXAMPLES, torch.float32, chunked=True)
    return evaluate(model, task, "accuracy", SCOPE, reading).score


Loop = Callable[[Backbone, Task], float]


def compare(method: str, split: Any, ours: Loop, theirs: Loop, rounds: int) -> np.ndarray:
    """Our time over theirs `[rounds, 2]`, by clock and by processor; both give the same number."""
    spec, task_spec = registry.load_method(method), registry.load_task("mqar")
    task = task_spec.build(task_spec.config(), split)

    def run(loop: Loop) -> tuple[np.ndarray, float]:
        model = Backbone(
            MODEL, task.vocab_size, lambda shape: spec.build(shape, spec.config()),
            train_context=PLAN.train_context, seed=0,
        )  # fmt: skip
        began = np.array([perf_counter(), process_time()])
        value = loop(model, task)
        return np.array([perf_counter(), process_time()]) - began, value

    assert math.isclose(run(ours)[1], run(theirs)[1], rel_tol=1e-5), "the loops differ"
    ratios: list[np.ndarray] = []
    for number in range(rounds):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        times = {loop: run(loop)[0] for loop in order}
        ratios.append(times[ours] / times[theirs])
    return np.stack(ratios)


@click.command()
@click.option("--rounds", default=20, help="Pairs of calls.")
@click.option("--threads", default=1, help="Threads torch may use; a quick cell has 1.")
@click.option("--method", "-m", multiple=True, default=["vanilla", "sliding-window"])
def main(rounds: int, threads: int, method: tuple[str, ...]) -> None:
    """Print the ratios."""
    torch.set_num_threads(threads)
    kinds = {
        "training": ("train", train_through_lcbench, train_by_hand),
        "scoring": ("test", score_through_lcbench, score_by_hand),
    }
    for name in method:
        for kind, (split, ours, theirs) in kinds.items():
            ratios = compare(name, split, ours, theirs, rounds)
            told = (
                f"{middle:.3f} ({low:.3f}-{high:.3f})"
                for low, middle, high in np.percentile(ratios, [25, 50, 75], axis=0).T
            )
            click.echo(f"{name:16} {kind:9} lcbench / by hand: {'; processor '.join(told)}")


if __name__ == "__main__":
    main()
