"""What a task and a suite tell of themselves, as text; methods are in `gallery`."""

import textwrap
from collections.abc import Iterable

from lcbench import registry
from lcbench.config import Config, type_name
from lcbench.examples import Example, draw_example
from lcbench.suite import DRAFT, Suite

WIDTH = 96


def task_card(name: str) -> str:
    """What one task asks, its floor, its config and one example.

    Raises:
        UsageError: No such task.
        PluginError: Its file cannot be used.
    """
    spec = registry.load_task(name)
    config = spec.config()
    test = spec.build(config, "test")
    example = draw_example(name, test)
    facts = [
        ("family", spec.family),
        ("metric", f"{spec.metric}, ceiling {spec.ceiling:g}"),
        ("floor", f"{test.floor(example.context):.4g}: {spec.floor_solver}"),
        ("vocabulary", f"{test.vocab_size:,} tokens"),
        ("source", spec.source),
        ("version", str(spec.version)),
        ("oracle", spec.oracle),
    ]
    summary = registry.headline("task", name).summary
    return "\n".join(
        [
            f"{name}: {spec.title}",
            *_wrap(summary),
            "",
            *_facts(facts),
            *_fields(config),
            "",
            f"One example of {example.context:,} tokens:",
            *_example(example),
            "[asked] is where an answer is due, (evidence) what it needs.",
            *_wrap(example.answers),
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
            + (f"; up to {plan.jitter} tokens shorter, at random" if plan.jitter else "")
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


def _example(example: Example) -> list[str]:
    """An example with its marks as brackets."""
    brackets = {"asked": "[]", "evidence": "()", "": ""}
    marked: list[str] = []
    for piece in example.pieces:
        around = brackets[piece.mark]
        marked.append(f"{around[:1]}{piece.text}{around[1:]}")
    if example.is_text:
        return _wrap("".join(marked))
    if example.columns is None:
        return _wrap(" ".join(marked))
    lines = range(0, len(marked), example.columns)
    return ["  " + " ".join(marked[start : start + example.columns]) for start in lines]
