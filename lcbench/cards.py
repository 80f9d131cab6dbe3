"""What a task and a suite tell of themselves, as text; methods are in `gallery`."""

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from lcbench import registry
from lcbench.config import Config, type_name
from lcbench.task import IGNORE, Batch, Task, stream

WIDTH = 96
EXAMPLE_CONTEXT = 64
IMAGE_CONTEXT = 1024


def task_card(name: str) -> str:
    """What one task asks, its floor, its config and one example.

    Raises:
        UsageError: No such task.
        PluginError: Its file cannot be used.
    """
    spec = registry.load_task(name)
    config = spec.config()
    test = spec.build(config, "test")
    context = EXAMPLE_CONTEXT if test.columns(EXAMPLE_CONTEXT) is None else IMAGE_CONTEXT
    facts = [
        ("family", spec.family),
        ("metric", f"{spec.metric}, ceiling {spec.ceiling:g}"),
        ("floor", f"{test.floor(context):.4g}: {spec.floor_solver}"),
        ("vocabulary", f"{test.vocab_size:,} tokens"),
        ("source", spec.source),
        ("version", str(spec.version)),
        ("oracle", spec.oracle),
    ]
    batch = test.sample(stream({"task": name, "example": True}, "test", 0), 1, context)
    summary = registry.headline("task", name).summary
    return "\n".join(
        [
            f"{name}: {spec.title}",
            *_wrap(summary),
            "",
            *_facts(facts),
            *_fields(config),
            "",
            f"One example of {context:,} tokens:",
            *_example(test, batch),
            "[asked] is where an answer is due, (evidence) what it needs.",
            *_answers(test, batch),
        ]
    )


def suite_card(name: str) -> str:
    """What one suite asks, of whom, on what ladder; raises as `task_card`."""
    suite = registry.load_suite(name)
    model, cost = suite.model, suite.cost
    facts = [
        ("version", str(suite.version)),
        ("meant for", f"{suite.device_kind}, {suite.dtype}"),
        ("model", f"width {model.d_model}, {model.num_layers} layers, {model.num_heads} heads"),
        ("seeds", _list(suite.seeds)),
        ("timeout", f"{suite.timeout_s:g} s a cell"),
        (
            "cost",
            f"one layer of width {cost.d_model}, {cost.num_heads} heads,"
            f" at {_list(cost.contexts)} tokens",
        ),
    ]
    lines = [f"{name}: {suite.title}", "", *_facts(facts), "", "Tasks"]
    for plan in suite.tasks:
        config = ",".join(f"{k}={v}" for k, v in plan.config.items())
        lines.append(f"  {plan.task}{':' + config if config else ''}")
        lines.append(
            f"    trained at {plan.train_context:,} tokens, {plan.steps} steps of {plan.batch},"
            f" learning rate {' or '.join(f'{rate:g}' for rate in plan.learning_rates)};"
            f" scored at {_list(plan.contexts)}"
        )
    return "\n".join(lines)


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


def _wrap(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _facts(facts: Iterable[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    for label, text in facts:
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=f"  {label:11} ", subsequent_indent=" " * 14
        )
    return lines


def _fields(config: Config) -> list[str]:
    kinds, docs = type(config).field_types(), type(config).field_docs()
    if not kinds:
        return ["", "No config fields."]
    lines = ["", "Config"]
    for name, kind in kinds.items():
        value = str(getattr(config, name))
        lines.append(f"  {name}={value}  ({type_name(kind)})")
        lines += _wrap(docs.get(name, ""), "    ")
    return lines


def _example(task: Task[Any], batch: Batch) -> list[str]:
    """The first example of a batch, with evidence and asked positions marked."""
    inputs, targets = batch.inputs[0], batch.targets[0]
    asked = targets != IGNORE
    evidence = np.zeros_like(asked)
    if batch.distances is not None:
        at = np.nonzero(asked & (batch.distances[0] > 0))[0]
        evidence[at - batch.distances[0][at]] = True
    words = [task.render(int(token)) for token in inputs]
    if asked.all():
        return _wrap(("" if _asks_next_tokens(batch) else " ").join(words))
    marked = [
        f"[{w}]" if a else f"({w})" if e else w
        for w, a, e in zip(words, asked, evidence, strict=True)
    ]
    columns = task.columns(len(marked))
    if columns is None:
        return _wrap(" ".join(marked))
    lines = range(0, len(marked), columns)
    return ["  " + " ".join(marked[start : start + columns]) for start in lines]


def _answers(task: Task[Any], batch: Batch) -> list[str]:
    inputs, targets = batch.inputs[0], batch.targets[0]
    asked = np.nonzero(targets != IGNORE)[0]
    if _asks_next_tokens(batch):
        return ["Asked everywhere: the next token."]
    if len(asked) == len(targets):
        return _wrap("Asked everywhere: " + " ".join(task.render(int(t)) for t in targets))
    pairs = [f"{task.render(int(inputs[i]))} → {task.render(int(targets[i]))}" for i in asked]
    return _wrap("Answers: " + ", ".join(pairs))


def _asks_next_tokens(batch: Batch) -> bool:
    return np.array_equal(batch.targets[:, :-1], batch.inputs[:, 1:])
