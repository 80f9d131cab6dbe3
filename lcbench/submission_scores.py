"""The rules for scores: summaries must be what their examples, bits and distances add up to."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lcbench.submission_rules import Findings
from lcbench.submission_tree import TaskFacts
from lcbench.suite import Cell, read_quality_recipe

SCORES_AGREE = 1e-9
"""Relative: the same sums in double precision."""
LOSSES_AGREE = 1e-4
"""Relative: means that were taken in single precision."""


def check_budget(row: dict[str, Any], cell: Cell, number: int, findings: Findings) -> None:
    """What a quality row says of its training and test must be what its plan asks."""
    _, plan = read_quality_recipe(cell)
    wanted = {
        "batch": plan.batch,
        "train_context": plan.train_context,
        "train_steps": plan.steps,
        "train_tokens": plan.steps * plan.batch * plan.train_context,
        "num_examples": plan.test_examples(row["context"]),
    }
    for column, value in wanted.items():
        if row[column] not in (value, None):
            message = f"{column} is {row[column]:,}; the plan asks for {value:,}"
            findings.add("task", message, number, about=column)
    if row["learning_rate"] not in (*plan.learning_rates, None):
        message = f"learning_rate {row['learning_rate']:g} is not among {plan.learning_rates}"
        findings.add("task", message, number, about="learning_rate")


def check_task(row: dict[str, Any], facts: TaskFacts, number: int, findings: Findings) -> None:
    """What a quality row says of its task must be what the task says."""
    wanted: dict[str, Any] = {"metric": facts.spec.metric, "ceiling": facts.spec.ceiling}
    if row["data_hash"] == facts.card.data_hash:
        wanted["floor"] = facts.floor(row["context"])
    for column, value in wanted.items():
        said = row[column]
        is_same = said == value if isinstance(value, str) else _agree(said, value, SCORES_AGREE)
        if said is not None and not is_same:
            message = f"{column} is {said!r}; the task's is {value!r}"
            findings.add("task", message, number, about=column)
    if (row["data_hash"] is None) is not (facts.card.data_hash is None):
        message = "data_hash is set for tasks on a corpus, and for no others"
        findings.add("task", message, number, about="data_hash")


def check_scores(rows: Sequence[dict[str, Any] | None], findings: Findings) -> None:
    """Recompute the summaries of every quality row that is ok."""
    for number, row in enumerate(rows):
        if row is None or row["kind"] != "quality" or row["status"] != "ok":
            continue
        examples = np.array(row["score_by_example"], dtype=np.float64)
        if len(examples) != row["num_examples"]:
            message = f"score_by_example has {len(examples):,} of {row['num_examples']:,} examples"
            findings.add("score", message, number, about="num_examples")
            continue
        _check_examples(row, examples, number, findings)
        if row["metric"] != "bits_per_byte":
            _check_bits(row, examples, number, findings)
        _check_distances(row, number, findings)
        _check_generated(row, number, findings)


def _check_examples(
    row: dict[str, Any], examples: np.ndarray, number: int, findings: Findings
) -> None:
    score, count = row["score"], len(examples)
    spread = float(examples.std(ddof=1)) if count > 1 else 0.0
    _expect("score_se", row["score_se"], spread / math.sqrt(count), number, findings)
    slack = LOSSES_AGREE * max(1.0, abs(score))
    if not examples.min() - slack <= score <= examples.max() + slack:
        message = f"score is {score:g}, its examples' {examples.min():g} to {examples.max():g}"
        findings.add("score", message, number, about="range of examples")
    if row["metric"] == "bits_per_byte":
        bits = row["loss_nats"] / math.log(2)
        if not _agree(score, bits, LOSSES_AGREE):
            message = f"score is {score:g} bits, its loss_nats come to {bits:g}"
            findings.add("score", message, number, about="loss_nats")
        return
    if examples.max() > 1:
        findings.add("score", f"an example's share of right answers is {examples.max():g}", number,
                     about="share of an example")  # fmt: skip
    if row["metric"] == "exact_match":
        if not set(examples.tolist()) <= {0.0, 1.0}:
            message = "score_by_example of exact_match holds other than 0 and 1"
            findings.add("score", message, number)
        _expect("score", score, float(examples.mean()), number, findings)


def _check_bits(row: dict[str, Any], examples: np.ndarray, number: int, findings: Findings) -> None:
    """The bits of right answers, of which the last byte may hold fewer than eight."""
    bits = np.unpackbits(np.frombuffer(row["correct_bits"], dtype=np.uint8))
    right = int(bits.sum())
    last = int(np.flatnonzero(bits).max(initial=-1)) + 1
    totals = range(max(len(bits) - 7, last, len(examples)), len(bits) + 1)
    if row["metric"] == "accuracy":
        totals = [total for total in totals if _agree(row["score"], right / total, SCORES_AGREE)]
        if not totals:
            message = f"score is {row['score']:g}, which its {right:,} right answers of"
            findings.add("score", f"{message} about {len(bits):,} do not give", number,
                         about="correct_bits")  # fmt: skip
            return
    if not totals:
        message = f"correct_bits holds {len(bits):,} answers, fewer than there are examples"
        findings.add("score", message, number, about="correct_bits length")
        return
    _check_even(row, examples, bits, totals, number, findings)
    counted = sum(row["count_by_distance"])
    if counted > max(totals):
        message = f"count_by_distance adds up to {counted:,} answers of {max(totals):,}"
        findings.add("score", message, number, about="count_by_distance")
    by_distance = zip(row["score_by_distance"], row["count_by_distance"], strict=False)
    if sum((score or 0) * count for score, count in by_distance) > right + 0.5:
        message = f"score_by_distance adds up to more than the {right:,} right answers"
        findings.add("score", message, number, about="right by distance")


def _check_even(
    row: dict[str, Any],
    examples: np.ndarray,
    bits: np.ndarray,
    totals: Any,
    number: int,
    findings: Findings,
) -> None:
    """Where every example asks as often, its share must be that of its own bits."""
    even = [total for total in totals if total % len(examples) == 0]
    if len(even) != 1 or not _agree(row["score"], float(examples.mean()), SCORES_AGREE):
        return
    shares = bits[: even[0]].reshape(len(examples), -1).mean(axis=1)
    if row["metric"] == "exact_match":
        shares = (shares == 1.0).astype(np.float64)
    if not np.allclose(shares, examples, rtol=0, atol=SCORES_AGREE):
        message = "score_by_example is not what correct_bits gives, example by example"
        findings.add("score", message, number, about="score_by_example")


def _check_distances(row: dict[str, Any], number: int, findings: Findings) -> None:
    scores, counts = row["score_by_distance"], row["count_by_distance"]
    if len(scores) != len(counts):
        message = f"score_by_distance has {len(scores)} buckets, count_by_distance {len(counts)}"
        findings.add("score", message, number, about="buckets")
        return
    for score, count in zip(scores, counts, strict=True):
        if (score is None) is not (count == 0):
            message = "score_by_distance is null where its count is 0, and nowhere else"
            findings.add("score", message, number)
        elif score is not None and abs(score * count - round(score * count)) > 1e-6 * count:
            message = f"score_by_distance has {score:g} of {count:,} answers, no whole number"
            findings.add("score", message, number, about="whole answers")


def _check_generated(row: dict[str, Any], number: int, findings: Findings) -> None:
    """Passages that a model wrote: a whole number of them right, and no score without them."""
    exact, count = row["generated_exact_match"], row["num_generated"]
    if (exact is None) is not (count is None) or (exact is None and row["generated_chrf"]):
        message = "generated_exact_match and num_generated are there together or not at all"
        findings.add("nulls", message, number)
    elif count is not None and abs(exact * count - round(exact * count)) > 1e-6 * count:
        message = f"generated_exact_match is {exact:g} of {count:,} passages, no whole number"
        findings.add("score", message, number, about="generated_exact_match")


def _expect(column: str, said: float, value: float, number: int, findings: Findings) -> None:
    if not _agree(said, value, SCORES_AGREE):
        message = f"{column} is {said:.9g}, its examples give {value:.9g}"
        findings.add("score", message, number, about=column)


def _agree(one: float | None, other: float, share: float) -> bool:
    return one is not None and math.isclose(one, other, rel_tol=share, abs_tol=share)
