"""What a task and a suite tell of themselves, as text; methods are in `gallery`."""

import itertools
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from lcbench import registry
from lcbench.config import Config, type_name
from lcbench.suite import DRAFT, Suite
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
    context = _example_context(test, context)
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
        ("version", _version(suite)),
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


def _version(suite: Suite) -> str:
    if suite.version > DRAFT:
        return str(suite.version)
    return (
        f"{DRAFT}, a draft: its tasks have not passed the gate at these budgets, which may change;"
        " what it measures is not for publishing"
    )


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


def _example_context(task: Task[Any], shortest: int) -> int:
    """The shortest context, doubling from `shortest`, that holds an example of the task."""
    for context in (shortest * 2**step for step in range(6)):
        try:
            task.sample(np.random.default_rng(0), 1, context)
        except ValueError:
            continue
        return context
    return shortest


def _example(task: Task[Any], batch: Batch) -> list[str]:
    """The first example of a batch, with evidence and asked positions marked."""
    inputs, targets = batch.inputs[0], batch.targets[0]
    asked = targets != IGNORE
    words = [task.render(int(token)) for token in inputs]
    if asked.all():
        return _wrap(("" if _is_text(task) else " ").join(words))
    evidence = np.zeros_like(asked)
    if batch.distances is not None:
        at = np.nonzero(asked & (batch.distances[0] > 0))[0]
        evidence[at - batch.distances[0][at]] = True
    marks = ["[]" if a else "()" if e else "" for a, e in zip(asked, evidence, strict=True)]
    if _is_text(task):
        same = itertools.groupby(zip(marks, words, strict=True), key=lambda pair: pair[0])
        runs = [(mark, "".join(word for _, word in run)) for mark, run in same]
        return _wrap("".join(f"{mark[:1]}{text}{mark[1:]}" for mark, text in runs))
    marked = [f"{mark[:1]}{word}{mark[1:]}" for mark, word in zip(marks, words, strict=True)]
    columns = task.columns(len(marked))
    if columns is None:
        return _wrap(" ".join(marked))
    lines = range(0, len(marked), columns)
    return ["  " + " ".join(marked[start : start + columns]) for start in lines]


def _answers(task: Task[Any], batch: Batch) -> list[str]:
    inputs, targets = batch.inputs[0], batch.targets[0]
    asked = np.nonzero(targets != IGNORE)[0]
    words = [task.render(int(token)) for token in inputs]
    wanted = [task.render(int(token)) for token in targets[asked]]
    is_next = np.array_equal(inputs[asked[:-1] + 1], targets[asked[:-1]])
    if len(asked) == len(targets) and is_next:
        return ["Asked everywhere: the next token."]
    if _is_text(task) and is_next and np.all(np.diff(asked) == 1):
        return _wrap("Answer: " + "".join(wanted))
    if not _is_text(task):
        if len(asked) == len(targets):
            return _wrap("Asked everywhere: " + " ".join(wanted))
        runs = [(words[at], answer) for at, answer in zip(asked, wanted, strict=True)]
    else:
        same = itertools.groupby(zip(asked, wanted, strict=True), key=lambda pair: pair[1])
        runs = [("".join(words[at] for at, _ in run), answer) for answer, run in same]
    pairs = ", ".join(f"{word} → {answer}" for word, answer in runs)
    return _wrap(("Asked everywhere: " if len(asked) == len(targets) else "Answers: ") + pairs)


def _is_text(task: Task[Any]) -> bool:
    """Whether tokens are characters that are read as one; others are read each for itself."""
    return task.data_hash() is not None
