"""Whether a suite tells methods apart: what must hold of a task before its scores mean anything.

A synthetic task is worth asking where its oracle method, given the suite's budget, reaches
`SOLVES` of the way from floor to ceiling in `SHARE` of at least `FEWEST_SEEDS` seeds: a method that
fails there has failed at the task, not for want of steps. A real one, which nothing solves, is
worth asking where it separates two methods by more than their seeds scatter. Both are read at the
trained context.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from lcbench import registry
from lcbench.ranking import comparable, normalised
from lcbench.rows import as_float

SOLVES = 0.9
SHARE = 0.8
FEWEST_SEEDS = 5


class Oracle(NamedTuple):
    """What a task says of who must solve it."""

    method: str
    real: bool
    """Whether the task's examples come from a corpus, so that nothing solves it."""


COLUMNS = ("task", "method", "seeds", "worst", "median", "best", "spread", "separation", "verdict")


def gate(frame: pd.DataFrame, oracles: Mapping[str, Oracle]) -> pd.DataFrame:
    """A verdict on each task of one suite: a row each task and method.

    `worst`, `median` and `best` are of the seeds' normalised scores. `spread` is the standard
    deviation of the task's own score over seeds, pooled over methods, and `separation` the distance
    between the two farthest methods' means in the same unit. The verdict stands in the row of the
    oracle method, or in all rows of a real task; it is empty elsewhere.

    Args:
        frame: Quality rows of one suite.
        oracles: By task.
    """
    rows = comparable(frame).frame
    rows = rows[(rows["kind"] == "quality") & (rows["context"] == rows["train_context"])]
    rows = rows.assign(normalised=normalised(rows), score=as_float(rows, "score"))
    parts = [_judge(str(task), part, oracles) for task, part in rows.groupby("task")]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def _judge(task: str, rows: pd.DataFrame, oracles: Mapping[str, Oracle]) -> pd.DataFrame:
    oracle = oracles[task]
    by_method = rows.groupby("method")
    table = by_method["normalised"].agg(["count", "min", "median", "max"]).reset_index()
    table.columns = ["method", "seeds", "worst", "median", "best"]
    deviations = by_method["score"].transform("mean") - rows["score"]
    freedom = len(rows) - len(table)
    table["task"] = task
    table["spread"] = (deviations.pow(2).sum() / freedom) ** 0.5 if freedom else float("nan")
    means = by_method["score"].mean()
    table["separation"] = means.max() - means.min()
    if oracle.real:
        table["verdict"] = _real_verdict(table)
    else:
        table["verdict"] = ""
        is_oracle = table["method"] == oracle.method
        solved = (rows["normalised"] >= SOLVES)[rows["method"] == oracle.method]
        table.loc[is_oracle, "verdict"] = _synthetic_verdict(solved)
    return table[list(COLUMNS)]


def _synthetic_verdict(solved: "pd.Series[bool]") -> str:
    told = f"{int(solved.sum())} of {len(solved)} seeds solved it"
    if len(solved) < FEWEST_SEEDS:
        return f"undecided: {told}, {FEWEST_SEEDS} are needed"
    return f"pass: {told}" if solved.mean() >= SHARE else f"fail: {told}"


def _real_verdict(table: pd.DataFrame) -> str:
    if table["seeds"].min() < FEWEST_SEEDS or len(table) < 2:
        return f"undecided: {FEWEST_SEEDS} seeds of two methods are needed"
    spread, separation = table["spread"].iloc[0], table["separation"].iloc[0]
    told = f"methods lie {separation:.3g} apart, seeds scatter by {spread:.3g}"
    # Two standard deviations: by one, seeds of the same method would often be told apart.
    return f"pass: {told}" if separation > 2 * spread else f"fail: {told}"


def judge_suite(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, bool]:
    """The verdicts on a suite of this installation, and whether each of its tasks passes.

    Raises:
        UsageError: No such suite or task.
    """
    tasks = [plan.task for plan in registry.load_suite(name).tasks]
    specs = {task: registry.load_task(task) for task in tasks}
    oracles = {task: Oracle(spec.oracle, spec.real) for task, spec in specs.items()}
    table = gate(frame[frame["task"].isin(tasks) | frame["task"].isna()], oracles)
    verdicts = table.loc[table["verdict"] != "", ["task", "verdict"]].drop_duplicates()
    passing = verdicts.loc[verdicts["verdict"].str.startswith("pass"), "task"]
    return table, set(passing) == set(tasks) and len(passing) == len(verdicts)
